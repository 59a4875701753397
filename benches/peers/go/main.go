// The Go side of the benchmarks. Reads lines of "operation size iterations", and answers each with the nanoseconds
// that took.
package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"time"
)

// Merge is what the example AfterFunc (Merge) of package context describes: a child of the first context, with its
// values and deadline, that is cancelled with the second, for the same cause.
func merge(primary, other context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(primary)
	stop := context.AfterFunc(other, func() { cancel(context.Cause(other)) })
	return ctx, func() {
		stop()
		cancel(context.Canceled)
	}
}

var shutdown, _ = context.WithCancel(context.Background())

// What the compiler must not leave out is stored here.
var (
	live  bool
	found any
)

type key int

func deep(levels int) context.Context {
	ctx := context.Background()
	for level := range levels {
		ctx = context.WithValue(ctx, key(level), level)
	}
	return ctx
}

// Each returns one iteration of what it measures.
var operations = map[string]func(size int) func(){
	// A new cancellable context, merged with the shutdown, checked, and both let go.
	"request": func(int) func() {
		return func() {
			request, hangUp := context.WithCancel(context.Background())
			ctx, release := merge(request, shutdown)
			live = ctx.Err() == nil
			release()
			hangUp()
		}
	},
	// The same with a timeout.
	"timeout": func(int) func() {
		return func() {
			request, hangUp := context.WithTimeout(context.Background(), 30*time.Second)
			ctx, release := merge(request, shutdown)
			live = ctx.Err() == nil
			release()
			hangUp()
		}
	},
	// A callback, registered and stopped.
	"callback": func(int) func() {
		return func() { live = context.AfterFunc(shutdown, func() {})() }
	},
	// The value that was added first, below so many.
	"value": func(size int) func() {
		ctx := deep(size)
		return func() { found = ctx.Value(key(0)) }
	},
}

func main() {
	for input := bufio.NewScanner(os.Stdin); input.Scan(); {
		var operation string
		var size, iterations int
		if _, err := fmt.Sscan(input.Text(), &operation, &size, &iterations); err != nil {
			panic(err)
		}
		run := operations[operation](size)
		start := time.Now()
		for range iterations {
			run()
		}
		fmt.Println(time.Since(start).Nanoseconds())
	}
}
