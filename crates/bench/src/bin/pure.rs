//! Takes one step of the pure path a number of times, for a program that counts instructions from outside:
//! `pure STEP CHANGES BYTES TIMES`.

use std::{hint::black_box, process::ExitCode};

use whatsapp_ingress_bench::{
    notifications::of_changes,
    pure::{APP_SECRET, build, cut, hash},
};
use whatsapp_webhook::signature::sign;

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let [step, numbers @ ..] = &arguments[..] else { return ExitCode::FAILURE };
    let Ok(numbers) = numbers.iter().map(|number| number.parse()).collect::<Result<Vec<usize>, _>>() else {
        return ExitCode::FAILURE;
    };
    let [changes, bytes, times] = numbers[..] else { return ExitCode::FAILURE };
    let body = of_changes(changes, bytes);
    let (header, fragments) = (sign(APP_SECRET, body.as_bytes()), cut(&body));
    for _ in 0..times {
        match step.as_str() {
            "hash" => hash(black_box(&body), &header),
            "split" => drop(black_box(cut(black_box(&body)))),
            "build" => _ = black_box(build(black_box(&fragments))),
            _ => return ExitCode::FAILURE,
        }
    }
    ExitCode::SUCCESS
}
