package file

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// asks are the events that are asked for. Package fsnotify would ask for
// modifications too.
const asks = unix.IN_CREATE | unix.IN_DELETE | unix.IN_MOVED_FROM | unix.IN_MOVED_TO |
	unix.IN_DELETE_SELF | unix.IN_MOVE_SELF | unix.IN_ONLYDIR

// A notifier is an inotify instance.
type notifier struct {
	file *os.File

	mu      sync.Mutex // guards what follows
	watches map[string]*asked
	paths   map[uint32]string // by watch descriptor
}

// asked is one directory that is being watched.
type asked struct {
	descriptor uint32
	uses       int
}

func openNotifier() (*notifier, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, inotifyError(err)
	}
	return &notifier{
		file:    os.NewFile(uintptr(fd), "inotify"),
		watches: make(map[string]*asked),
		paths:   make(map[uint32]string),
	}, nil
}

// inotifyError names the limit that err stands for. The error itself reads like a
// full disk, or like too many open files.
func inotifyError(err error) error {
	switch {
	case errors.Is(err, unix.ENOSPC):
		return fmt.Errorf("the limit fs.inotify.max_user_watches is reached: %w", err)
	case errors.Is(err, unix.EMFILE):
		return fmt.Errorf("the limit fs.inotify.max_user_instances, or that of open files (ulimit -n), is reached: %w", err)
	}
	return err
}

// add asks for notices of the directory now at path. Each add needs one remove.
func (n *notifier) add(path string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	descriptor, err := n.ask(path)
	if err != nil {
		return &os.PathError{Op: "watching", Path: path, Err: inotifyError(err)}
	}
	w := n.watches[path]
	if w == nil {
		w = &asked{descriptor: descriptor}
		n.watches[path] = w
	} else if w.descriptor != descriptor {
		n.drop(w.descriptor) // of an earlier directory at path
		w.descriptor = descriptor
	}
	w.uses++
	n.paths[descriptor] = path
	return nil
}

func (n *notifier) ask(path string) (descriptor uint32, err error) {
	conn, err := n.file.SyscallConn()
	if err != nil {
		return 0, err
	}
	var added int
	controlErr := conn.Control(func(fd uintptr) { added, err = unix.InotifyAddWatch(int(fd), path, asks) })
	return uint32(added), errors.Join(controlErr, err)
}

// remove undoes one add.
func (n *notifier) remove(path string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	w := n.watches[path]
	if w == nil {
		return
	}
	if w.uses--; w.uses == 0 {
		delete(n.watches, path)
		n.drop(w.descriptor)
	}
}

func (n *notifier) drop(descriptor uint32) {
	if _, ok := n.paths[descriptor]; !ok {
		return // the system has dropped it with its directory
	}
	delete(n.paths, descriptor)
	if conn, err := n.file.SyscallConn(); err == nil {
		_ = conn.Control(func(fd uintptr) { _, _ = unix.InotifyRmWatch(int(fd), descriptor) })
	}
}

// run passes notices to heed until the notifier is closed.
func (n *notifier) run(heed func(notice)) {
	buffer := make([]byte, 64<<10)
	for {
		size, err := n.file.Read(buffer)
		if err != nil {
			return // closed: a read fails for no other reason
		}
		for rest := buffer[:size]; len(rest) >= unix.SizeofInotifyEvent; {
			descriptor, mask := binary.NativeEndian.Uint32(rest), binary.NativeEndian.Uint32(rest[4:])
			end := unix.SizeofInotifyEvent + int(binary.NativeEndian.Uint32(rest[12:]))
			name := string(bytes.TrimRight(rest[unix.SizeofInotifyEvent:end], "\x00"))
			rest = rest[end:]
			n.pass(descriptor, mask, name, heed)
		}
	}
}

func (n *notifier) pass(descriptor, mask uint32, name string, heed func(notice)) {
	if mask&unix.IN_Q_OVERFLOW != 0 {
		heed(notice{lost: true})
		return
	}
	n.mu.Lock()
	path, ok := n.paths[descriptor]
	if ok && mask&unix.IN_IGNORED != 0 {
		delete(n.paths, descriptor)
	}
	n.mu.Unlock()
	if ok {
		heed(notice{dir: path, name: name})
	}
}

// Close ends run.
func (n *notifier) Close() error { return n.file.Close() }
