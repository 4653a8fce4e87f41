package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

// process is a program that was started here and will be ended here.
type process struct {
	name string
	cmd  *exec.Cmd
	done chan struct{}
	err  error
}

// start runs a program with its output appended to a log file.
func start(name, logFile, binary string, args ...string) (*process, error) {
	log, err := os.OpenFile(logFile, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	fmt.Fprintf(log, "$ %s %s\n", binary, strings.Join(args, " "))
	cmd := exec.Command(binary, args...)
	cmd.Stdout, cmd.Stderr = log, log
	return launch(name, cmd)
}

func launch(name string, cmd *exec.Cmd) (*process, error) {
	// If the driver dies without cleaning up, the kernel kills its children.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start the %s: %w", name, err)
	}
	p := &process{name: name, cmd: cmd, done: make(chan struct{})}
	running.add(p)
	go func() {
		p.err = cmd.Wait()
		running.remove(p)
		close(p.done)
	}()
	return p, nil
}

// alive fails if the process has ended by itself.
func (p *process) alive() error {
	select {
	case <-p.done:
		return fmt.Errorf("the %s has ended: %s", p.name, p.cmd.ProcessState)
	default:
		return nil
	}
}

// kill ends the process with SIGKILL and waits until it is gone.
func (p *process) kill() {
	if p == nil {
		return
	}
	_ = p.cmd.Process.Kill()
	<-p.done
}

// terminate asks the process to end with SIGTERM; it must exit within limit, or is killed.
func (p *process) terminate(limit time.Duration) error {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.done:
		return p.err
	case <-time.After(limit):
		p.kill()
		return fmt.Errorf("the %s did not end within %s of SIGTERM", p.name, limit)
	}
}

// running holds what an interrupted driver has to end.
var running processes

type processes struct {
	lock sync.Mutex
	set  map[*process]bool
}

func (s *processes) add(p *process) {
	s.lock.Lock()
	defer s.lock.Unlock()
	if s.set == nil {
		s.set = map[*process]bool{}
	}
	s.set[p] = true
}

func (s *processes) remove(p *process) {
	s.lock.Lock()
	defer s.lock.Unlock()
	delete(s.set, p)
}

// killAllOnInterrupt ends everything that was started, by process id, when the driver is told to end.
func killAllOnInterrupt() {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	go func() {
		<-signals
		running.lock.Lock() // for good: nothing may be started any more
		for p := range running.set {
			_ = p.cmd.Process.Kill()
		}
		os.Exit(1)
	}()
}

// pollEvery is the grain of waiting.
const pollEvery = 20 * time.Millisecond

// waitFor polls until the condition holds. It fails at the limit, or as soon as one of the processes ends.
func waitFor(what string, limit time.Duration, condition func() (bool, error), needed ...*process) error {
	deadline := time.Now().Add(limit)
	for {
		holds, err := condition()
		if holds {
			return nil
		}
		for _, p := range needed {
			if gone := p.alive(); gone != nil {
				return fmt.Errorf("while waiting for %s: %w", what, gone)
			}
		}
		if time.Now().After(deadline) {
			return errors.Join(fmt.Errorf("no %s within %s", what, limit), err)
		}
		time.Sleep(pollEvery)
	}
}

// runToEnd runs a short program and returns its standard output.
func runToEnd(logFile, binary string, args ...string) error {
	p, err := start(filepath.Base(binary), logFile, binary, args...)
	if err != nil {
		return err
	}
	select {
	case <-p.done:
		if p.err != nil {
			return fmt.Errorf("`%s %s`: %w", filepath.Base(binary), strings.Join(args, " "), p.err)
		}
		return nil
	case <-time.After(30 * time.Second):
		p.kill()
		return fmt.Errorf("`%s %s` did not end within 30s", filepath.Base(binary), strings.Join(args, " "))
	}
}

// outputOf runs a short program and returns what it prints.
func outputOf(binary string, args ...string) (string, error) {
	output, err := exec.Command(binary, args...).Output()
	if err != nil {
		return "", fmt.Errorf("`%s %s`: %w", filepath.Base(binary), strings.Join(args, " "), err)
	}
	return string(output), nil
}
