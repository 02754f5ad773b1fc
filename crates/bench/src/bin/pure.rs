//! Repeats one step of the pure path, so that callgrind can count its instructions: `pure STEP CHANGES BYTES REPETITIONS`.

use std::{hint::black_box, process::ExitCode};

use whatsapp_ingress_bench::{
    notifications::notification_of_size,
    pure::{APP_SECRET, build_messages, split_body, verify_signature},
};
use whatsapp_webhook::signature::sign;

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let [step, numbers @ ..] = &arguments[..] else { return ExitCode::FAILURE };
    let Ok(numbers) = numbers.iter().map(|number| number.parse()).collect::<Result<Vec<usize>, _>>() else {
        return ExitCode::FAILURE;
    };
    let [changes, bytes, repetitions] = numbers[..] else { return ExitCode::FAILURE };
    let body = notification_of_size(changes, bytes);
    let (header, fragments) = (sign(APP_SECRET, body.as_bytes()), split_body(&body));
    for _ in 0..repetitions {
        match step.as_str() {
            "hash" => verify_signature(black_box(&body), &header),
            "split" => drop(black_box(split_body(black_box(&body)))),
            "build" => _ = black_box(build_messages(black_box(&fragments))),
            _ => return ExitCode::FAILURE,
        }
    }
    ExitCode::SUCCESS
}
