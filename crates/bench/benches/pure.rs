//! Measures the time of each step of the pure path for notifications of several sizes.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use whatsapp_ingress_bench::{
    notifications::notification_of_size,
    pure::{APP_SECRET, build_messages, split_body, verify_signature},
};
use whatsapp_webhook::signature::sign;

/// The number of changes and the bytes of each: a typical notification, a batch, growing batches, and one large change.
const SHAPES: [(usize, usize); 6] = [(1, 600), (25, 600), (100, 2_900), (400, 2_900), (1_000, 2_900), (1, 2_900_000)];

fn steps(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("pure");
    for (changes, bytes) in SHAPES {
        let body = notification_of_size(changes, bytes);
        let (header, fragments) = (sign(APP_SECRET, body.as_bytes()), split_body(&body));
        let shape = format!("{changes} x {bytes} B");
        group.throughput(Throughput::Bytes(body.len() as u64));
        group.bench_function(BenchmarkId::new("hash", &shape), |bench| {
            bench.iter(|| verify_signature(black_box(&body), &header));
        });
        group.bench_function(BenchmarkId::new("split", &shape), |bench| bench.iter(|| split_body(black_box(&body))));
        group.bench_function(BenchmarkId::new("build", &shape), |bench| {
            bench.iter(|| build_messages(black_box(&fragments)));
        });
    }
    group.finish();
}

criterion_group!(pure, steps);
criterion_main!(pure);
