// The Node side of the benchmarks. Reads lines of "operation size iterations", and answers each with the nanoseconds
// that took.
import { createInterface } from "node:readline";
import { setImmediate } from "node:timers/promises";

const signals = (count) => Array.from({ length: count }, () => new AbortController().signal);
let live; // what must not be optimised away

// Each returns one iteration of what it measures.
const operations = {
  // A signal that follows so many, made and let go.
  make: (size) => {
    const inputs = signals(size);
    return () => { live = AbortSignal.any(inputs); };
  },
  // Whether it is aborted.
  check: (size) => {
    const any = AbortSignal.any(signals(size));
    return () => { live = any.aborted; };
  },
  // A signal that follows two, made, checked and let go.
  merge: () => {
    const inputs = signals(2);
    return () => { live = AbortSignal.any(inputs).aborted; };
  },
};

const ready = new Map(); // what is set up once for all samples
for await (const line of createInterface({ input: process.stdin })) {
  const [operation, size, iterations] = line.split(" ");
  const key = `${operation} ${size}`;
  if (!ready.has(key)) {
    ready.set(key, operations[operation](Number(size)));
    gc(); // what that has left is not the operation's
  }
  const run = ready.get(key);
  const start = process.hrtime.bigint();
  for (let iteration = 1; iteration <= Number(iterations); iteration++) {
    run();
    // What was let go is collected between turns of the event loop only.
    if (iteration % 1000 === 0) await setImmediate();
  }
  console.log(String(process.hrtime.bigint() - start));
}
