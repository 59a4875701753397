# The recipes that .ci/run runs, in its order; `just` alone runs the tests.

# cargo-fuzz needs a nightly compiler, for its sanitizers.
nightly := env("NIGHTLY", "nightly")

default: test

# The README's test command.
test:
    cargo test

format:
    cargo fmt --all --check

lint:
    cargo clippy --all-targets --all-features -- -D warnings
    cargo clippy --all-targets --no-default-features -- -D warnings

doc:
    RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --all-features --document-private-items

# The models of tests/loom/, each through every interleaving up to its bound on preemptions; prints a line for each.
loom:
    RUSTFLAGS="--cfg context_merge_loom" CARGO_TARGET_DIR=target/loom cargo test --release --test loom -- --nocapture --test-threads=1

# Fuzzes each target for so many seconds.
fuzz seconds="60":
    cargo +{{ nightly }} fuzz run programs -- -max_total_time={{ seconds }} -max_len=400 -rss_limit_mb=4096

# The README's first command, and every other example.
examples:
    cargo run --example shutdown
