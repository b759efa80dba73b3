package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// pids returns the processes: those that were started, and their children.
func (p *proxy) pids() (all []int, err error) {
	if p.inside != nil {
		all = append(all, p.inside.cmd.Process.Pid)
	}
	for _, cmd := range p.cmds {
		all = append(all, cmd.Process.Pid)
	}
	for n := 0; n < len(all); n++ {
		tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", all[n]))
		if err != nil {
			return nil, err
		}
		for _, task := range tasks {
			b, err := os.ReadFile(task)
			if err != nil {
				return nil, err
			}
			for field := range strings.FieldsSeq(string(b)) {
				pid, err := strconv.Atoi(field)
				if err != nil {
					return nil, err
				}
				all = append(all, pid)
			}
		}
	}
	return all, nil
}

// usage returns the CPU time that the processes have used, in microseconds. A
// thread that has ended is not counted; none does while requests run.
func (p *proxy) usage() (sum float64, err error) {
	pids, err := p.pids()
	for _, pid := range pids {
		tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
		if err != nil {
			return 0, err
		}
		for _, task := range tasks {
			b, err := os.ReadFile(task)
			if err != nil {
				continue // it has just ended
			}
			ran, _, _ := strings.Cut(string(b), " ")
			ns, err := strconv.ParseFloat(ran, 64)
			if err != nil {
				return 0, err
			}
			sum += ns / 1000
		}
	}
	return sum, err
}

// memory returns what the processes hold, in bytes.
func (p *proxy) memory() (sum float64, err error) {
	pids, err := p.pids()
	for _, pid := range pids {
		bytes, err := residentBytes(strconv.Itoa(pid))
		if err != nil {
			return 0, err
		}
		sum += bytes
	}
	return sum, err
}
