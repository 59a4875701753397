# The recipes that .ci/run runs, in its order; `just` alone runs the tests.

# cargo-fuzz needs a nightly compiler, for its sanitizers.
nightly := env("NIGHTLY", "nightly")

default: test

# The README's test command.
test:
    cargo test --all-features

format:
    cargo fmt --all --check
    cargo fmt --check --manifest-path benches/Cargo.toml

lint:
    cargo clippy --all-targets --all-features -- -D warnings
    cargo clippy --all-targets --no-default-features -- -D warnings
    cargo clippy --all-targets --manifest-path benches/Cargo.toml -- -D warnings

doc:
    RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --all-features --document-private-items

# Each set of features by itself.
features:
    cargo hack check --feature-powerset --lib

# The lowest versions that Cargo.toml allows, in a copy. Without tokio-util, which asks for a newer tokio than we do.
minimal:
    rm -rf target/minimal && mkdir -p target/minimal
    cp -r src examples target/minimal && sed '/tokio-util/d' Cargo.toml > target/minimal/Cargo.toml
    cd target/minimal && cargo hack --remove-dev-deps && cargo +{{ nightly }} update -Z direct-minimal-versions
    cargo check --all-features --lib --manifest-path target/minimal/Cargo.toml --target-dir target/minimal/target

# What would be uploaded, unpacked and built, and its pages' programs run.
package:
    rm -rf target/package
    cargo package --allow-dirty
    cargo test --all-features --doc --manifest-path target/package/context-merge-*/Cargo.toml --target-dir target

# The programs of tests/refused.md are refused for the reason they name, which only nightly looks at.
refused:
    cargo +{{ nightly }} test --doc refused

# Licences, duplicates, sources and advisories of all dependencies. Needs cargo-deny.
deny *what:
    cargo deny check {{ what }}

# Whether the public face breaks what a revision has, which is the last release's. Needs cargo-semver-checks.
semver revision:
    cargo semver-checks --all-features --baseline-rev {{ revision }}

# The models of tests/loom/, each through every interleaving up to its bound on preemptions; prints a line for each.
loom:
    RUSTFLAGS="--cfg context_merge_loom" CARGO_TARGET_DIR=target/loom cargo test --release --test loom -- --nocapture --test-threads=1

# Programs for several threads under shuttle's schedules, and what they tell judged by the model; so many programs.
schedules programs="256":
    RUSTFLAGS="--cfg context_merge_shuttle" CARGO_TARGET_DIR=target/shuttle PROPTEST_CASES={{ programs }} cargo test --release --test schedules

# Runs a program that failed under its schedule again; the failure says with which two words.
replay program schedule:
    REPLAY="{{ program }} {{ schedule }}" RUSTFLAGS="--cfg context_merge_shuttle" CARGO_TARGET_DIR=target/shuttle cargo test --release --test schedules -- --nocapture

# Fuzzes each target for so many seconds, with AddressSanitizer and a look for leaks.
fuzz seconds="60": (fuzz-one "programs" seconds "400") (fuzz-one "threads" seconds "200") (fuzz-one "headers" seconds "20")

# New finds go to fuzz/corpus, which is not committed; the seeds are, and run on stable with the tests.
[private]
fuzz-one target seconds length:
    mkdir -p fuzz/corpus/{{ target }}
    cargo +{{ nightly }} fuzz run {{ target }} fuzz/corpus/{{ target }} tests/seeds/{{ target }} -- -max_total_time={{ seconds }} -max_len={{ length }} -rss_limit_mb=4096

# Breaks the code in one place after the other, and lists what no test notices: hours. Needs cargo-mutants.
mutants *options:
    cargo mutants {{ options }}

# The README's first command, and every other example.
examples:
    cargo run --example shutdown
    cargo run --all-features --example clients
    cargo run --all-features --example moving
    cargo run --all-features --example chain
    cargo run --all-features --example service
    cargo run --all-features --example stop_button
    cargo run --example tick
    cargo run --example slow_server
    cargo run --example dependent
    cargo run --example store
    cargo run --example plain_thread

# One service with every kind of endpoint, shut down under load.
service:
    cargo run --all-features --example service

# The recipe of a database, its tests, and the service, with a PostgreSQL of their own. Installs Debian's package.
postgres:
    .ci/postgres just with-database

[private]
with-database:
    cargo test --all-features --test postgres
    cargo test --all-features --doc recipes
    cargo run --all-features --example service

# Ours and the peers in turn: the table, in BENCHMARKS.md too, and its plots. With a word, only what has it in its name.
bench word="":
    rm -rf benches/target/criterion
    cd benches && cargo bench -- --quiet {{ word }} > /dev/null
    cd benches && cargo build --release --bins && target/release/report {{ word }}

# The instructions of the seven hottest operations, against benches/instructions.txt. Needs valgrind.
bench-check: (instructions "")

# Keeps the instructions that they take now.
bench-accept: (instructions "accept")

[private]
instructions accept:
    cd benches && cargo build --release --bins && target/release/instructions {{ accept }}

# The server under load, some ten minutes: all of it, or `requests`, `parked` or `memory`. Needs wrk.
load part="":
    cd benches && cargo build --release --bin server --bin load
    ulimit -n 12000 || { echo "10,000 connections need a limit of 12,000 open files (ulimit -Hn)" >&2; exit 1; }; \
        benches/target/release/load {{ part }}

# Each benchmark once and small, and the tests of the report.
bench-smoke:
    cd benches && cargo test --release --all-targets
