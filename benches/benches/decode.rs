//! How fast requests are decoded: a buffer of many, as a connection with a deep pipeline fills it.

use std::hint::black_box;

use benches::value::Values;
use benches::wire::Dialect;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use protocol::{Decoder, Limits, Step};

const REQUESTS: u64 = 1000;

/// A thousand requests in one buffer.
fn buffer(write: impl Fn(&[u8], &mut Vec<u8>)) -> Vec<u8> {
    let mut buffer = Vec::new();
    for number in 0..REQUESTS {
        write(format!("k{number:023}").as_bytes(), &mut buffer);
    }
    buffer
}

/// Decodes all of `buffer`; how many requests it held.
fn decode_all(buffer: &[u8]) -> u64 {
    let mut decoder = Decoder::new(Limits::default());
    let mut rest = buffer;
    let mut requests = 0;
    while !rest.is_empty() {
        let Step::Request { consumed, request } = decoder.decode(rest) else {
            unreachable!("the buffer holds whole requests and nothing else")
        };
        black_box(request);
        rest = &rest[consumed..];
        requests += 1;
    }
    requests
}

fn decode(criterion: &mut Criterion) {
    let values = Values::new();
    let get = |dialect: Dialect| buffer(|key, out| dialect.write_get(std::iter::once(key), out));
    let set = |dialect: Dialect| buffer(|key, out| dialect.write_set(key, 100, &values, out));
    let cases = [
        ("get", get(Dialect::Text)),
        ("mg", get(Dialect::Meta)),
        ("set", set(Dialect::Text)),
        ("ms", set(Dialect::Meta)),
    ];
    let mut group = criterion.benchmark_group("decode");
    group.throughput(Throughput::Elements(REQUESTS));
    for (name, buffer) in cases {
        assert_eq!(decode_all(&buffer), REQUESTS, "every request of the {name} buffer is decoded");
        group.bench_function(name, |bencher| bencher.iter(|| decode_all(black_box(&buffer))));
    }
    group.finish();
}

criterion_group!(all, decode);
criterion_main!(all);
