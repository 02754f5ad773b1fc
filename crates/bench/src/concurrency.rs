//! Measures execution environments that serve several requests at a time, with a whole processor.

use std::{
    error::Error,
    fmt::Write as _,
    time::{Duration, Instant},
};

use futures_util::future::try_join_all;

use crate::{
    measure::{TestBed, invoke},
    memory, page,
    plan::{Effort, MEMORY, WITH_TLS},
    results::{Setting, quantile},
    scenario::Scenario,
    subject::Subject,
};

const PAGE: &str = "docs/performance.md";

/// The numbers of requests at a time.
const MAX_CONCURRENCY: [usize; 3] = [1, 8, 32];

const SCENARIOS: [Scenario; 2] = [Scenario::One, Scenario::Thousand];

/// Measures each subject with each number of requests, and writes the table into the page.
pub(crate) async fn write(subjects: &[Subject], time: Duration) -> Result<(), Box<dyn Error>> {
    let setting = Setting { memory_mb: MEMORY.last().copied(), ..WITH_TLS };
    let mut text = "| scenario | | requests at a time | requests/s | median ms | 99 % ms | CPU ms | peak MB |\n\
        |---|---|--:|--:|--:|--:|--:|--:|\n"
        .to_owned();
    for scenario in SCENARIOS {
        for subject in subjects {
            for max_concurrency in MAX_CONCURRENCY {
                let row = match measure(scenario, *subject, max_concurrency, setting, time).await {
                    Ok(row) => row,
                    // An alternative may fail. The function must not.
                    Err(error) if *subject == Subject::Ours => return Err(error),
                    Err(error) => {
                        eprintln!("{}: {error}", subject.name());
                        format!("| {} | {} | {max_concurrency} | failed | | | | |\n", scenario.name(), subject.name())
                    }
                };
                eprint!("{row}");
                text.push_str(&row);
            }
        }
    }
    page::update(PAGE, &[("concurrency", text)])
}

/// Keeps an environment busy: as soon as a request is answered, the next one begins.
async fn measure(
    scenario: Scenario,
    subject: Subject,
    max_concurrency: usize,
    setting: Setting,
    time: Duration,
) -> Result<String, Box<dyn Error>> {
    let test_bed = TestBed::new(setting, Effort::DEFAULT);
    let environment = test_bed.start(subject, &[("AWS_LAMBDA_MAX_CONCURRENCY", max_concurrency.to_string())])?;
    let event = scenario.event();
    let load = async |time: Duration| {
        let started = Instant::now();
        let client = async || {
            let mut times = Vec::new();
            while times.is_empty() || started.elapsed() < time {
                times.push(invoke(scenario, subject, &environment, &event).await?);
            }
            Ok::<_, Box<dyn Error>>(times)
        };
        let mut times = try_join_all((0..max_concurrency).map(|_| client())).await?.concat();
        times.sort_unstable();
        Ok::<_, Box<dyn Error>>((times, started.elapsed()))
    };
    load(time / 4).await?;
    test_bed.clear();
    memory::reset_peak(environment.pid())?;
    let used = environment.used_time()?;
    let (times, elapsed) = load(time).await?;
    let used = environment.used_time()?.saturating_sub(used);
    test_bed.expect_messages(scenario, subject, times.len())?;
    #[allow(clippy::cast_precision_loss, reason = "the number is small")]
    let count = times.len() as f64;
    let mut row = String::new();
    let _ = writeln!(
        row,
        "| {} | {} | {max_concurrency} | {:.0} | {:.1} | {:.1} | {:.2} | {:.0} |",
        scenario.name(),
        subject.name(),
        count / elapsed.as_secs_f64(),
        quantile(&times, 0.5),
        quantile(&times, 0.99),
        used.as_secs_f64() * 1e3 / count,
        memory::peak_mb(environment.pid())?,
    );
    Ok(row)
}
