// An HTTP server under the load of a client in another process, over connections that stay open.
package main

import (
	"crypto/sha256"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"os"
	"os/exec"
	"strings"
	"sync"
	"time"
)

const connections = 16

func body(n int) []byte {
	sum := sha256.Sum256([]byte(fmt.Sprint(n)))
	return []byte(strings.Repeat(fmt.Sprintf("%x", sum), n%300+1))
}

func exists(name string) bool {
	_, err := os.Stat(name)
	return err == nil
}

func touch(name, text string) {
	if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
		panic(err)
	}
}

// One connection: asks until some time after `go` is there.
func ask(url string, number int, begun func()) error {
	client := &http.Client{Transport: &http.Transport{MaxIdleConns: 1}, Timeout: 60 * time.Second}
	dialled := 0
	trace := &httptrace.ClientTrace{GotConn: func(info httptrace.GotConnInfo) {
		if !info.Reused {
			dialled++
		}
	}}
	after := 0
	for n := 1; after < 50; n++ {
		request, err := http.NewRequest("POST", fmt.Sprintf("%s/%d", url, n*number), strings.NewReader(strings.Repeat("x", n%5000)))
		if err != nil {
			return err
		}
		response, err := client.Do(request.WithContext(httptrace.WithClientTrace(request.Context(), trace)))
		if err != nil {
			return err
		}
		answer, err := io.ReadAll(response.Body)
		response.Body.Close()
		if err != nil {
			return err
		}
		if string(answer) != string(body(n*number+n%5000)) {
			return fmt.Errorf("request %d: %d wrong bytes", n, len(answer))
		}
		if dialled != 1 {
			return fmt.Errorf("request %d: %d connections", n, dialled)
		}
		if n == 50 {
			begun()
		}
		if exists("go") {
			after++
		}
	}
	return nil
}

func client(url string) error {
	var begun, ended sync.WaitGroup
	begun.Add(connections)
	errors := make(chan error, connections)
	for i := 0; i < connections; i++ {
		ended.Add(1)
		go func(i int) {
			defer ended.Done()
			if err := ask(url, i+1, begun.Done); err != nil {
				errors <- err
			}
		}(i)
	}
	all := make(chan bool)
	go func() { begun.Wait(); touch("progress", ""); ended.Wait(); all <- true }()
	select {
	case err := <-errors:
		return err
	case <-all:
	}
	select {
	case err := <-errors:
		return err
	default:
		return nil
	}
}

func main() {
	if len(os.Args) > 1 {
		if err := client(os.Args[1]); err != nil {
			touch("result", err.Error())
			os.Exit(3)
		}
		return
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	go http.Serve(listener, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var n int
		fmt.Sscanf(r.URL.Path, "/%d", &n)
		sent, err := io.Copy(io.Discard, r.Body)
		if err != nil {
			panic(err)
		}
		w.Write(body(n + int(sent)))
	}))
	child := exec.Command(os.Args[0], "http://"+listener.Addr().String())
	child.Stderr = os.Stderr
	if err := child.Run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(3)
	}
	touch("result", "ok")
}
