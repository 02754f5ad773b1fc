//! The time that each step of the pure path takes, by the size of the notification.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use whatsapp_ingress_bench::{
    notifications::of_changes,
    pure::{APP_SECRET, build, cut, hash},
};
use whatsapp_webhook::signature::sign;

/// Changes, and bytes of each: the usual one, a batch, growing batches of large ones, a single large one.
const SHAPES: [(usize, usize); 6] = [(1, 600), (25, 600), (100, 2_900), (400, 2_900), (1_000, 2_900), (1, 2_900_000)];

fn steps(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("pure");
    for (changes, bytes) in SHAPES {
        let body = of_changes(changes, bytes);
        let (header, fragments) = (sign(APP_SECRET, body.as_bytes()), cut(&body));
        let shape = format!("{changes} x {bytes} B");
        group.throughput(Throughput::Bytes(body.len() as u64));
        group.bench_function(BenchmarkId::new("hash", &shape), |bench| bench.iter(|| hash(black_box(&body), &header)));
        group.bench_function(BenchmarkId::new("split", &shape), |bench| bench.iter(|| cut(black_box(&body))));
        group.bench_function(BenchmarkId::new("build", &shape), |bench| bench.iter(|| build(black_box(&fragments))));
    }
    group.finish();
}

criterion_group!(pure, steps);
criterion_main!(pure);
