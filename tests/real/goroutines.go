// Goroutines that pass work along channels, a ticker, explicit garbage collections, a mutex and maps.
// Protocol: see chain.py.
package main

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sort"
	"sync"
	"sync/atomic"
	"time"
)

const (
	workers = 50
	items   = 2000
)

func at(name string) string { return filepath.Join(os.Getenv("CKPT_DIR"), name) }

func gone() bool {
	_, err := os.Stat(at("go"))
	return err == nil
}

func main() {
	in := make(chan int)
	out := make(chan string, 8)
	var group sync.WaitGroup
	var mutex sync.Mutex
	seen := map[int][]byte{}
	var ticks, released atomic.Int64

	ticker := time.NewTicker(2 * time.Millisecond)
	defer ticker.Stop()
	go func() {
		for range ticker.C {
			ticks.Add(1)
			if gone() {
				released.Store(1)
			}
		}
	}()
	go func() {
		for {
			runtime.GC()
			time.Sleep(3 * time.Millisecond)
		}
	}()

	for w := 0; w < workers; w++ {
		group.Add(1)
		go func() {
			defer group.Done()
			for item := range in {
				sum := sha256.Sum256([]byte(fmt.Sprint(item)))
				for i := 0; i < 200; i++ {
					sum = sha256.Sum256(sum[:])
				}
				mutex.Lock()
				seen[item] = append(make([]byte, 0, 1000), sum[:]...)
				mutex.Unlock()
				out <- fmt.Sprintf("%06d %s", item, hex.EncodeToString(sum[:]))
			}
		}()
	}
	go func() {
		for item := 0; item < items; item++ {
			if item > items/2 && released.Load() == 0 {
				time.Sleep(time.Millisecond)
			}
			in <- item
		}
		for released.Load() == 0 {
			time.Sleep(time.Millisecond)
		}
		close(in)
		group.Wait()
		close(out)
	}()

	var lines []string
	for line := range out {
		lines = append(lines, line)
		if len(lines) == items/2 {
			if err := os.WriteFile(at("ready"), nil, 0o644); err != nil {
				panic(err)
			}
		}
	}
	sort.Strings(lines)
	total := 0
	for _, bytes := range seen {
		total += int(bytes[0])
	}
	file, err := os.Create(at("result"))
	if err != nil {
		panic(err)
	}
	defer file.Close()
	for _, line := range lines {
		fmt.Fprintln(file, line)
	}
	fmt.Fprintln(file, len(seen), total, ticks.Load() > 0)
}
