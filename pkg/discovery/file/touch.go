package file

import (
	"errors"
	"maps"
	"os"
	"slices"
)

// touch shows that the owner of the records that this store keeps is alive, and
// writes again those that are gone.
func (b *bucket) touch() {
	b.mu.Lock()
	leases := slices.Collect(maps.Values(b.owned))
	b.mu.Unlock()
	var lost int
	var errs []error
	for _, l := range leases {
		if l.ttl > 0 {
			continue
		}
		switch err := b.renew(l); {
		case errors.Is(err, errLost):
			lost++
		case errors.Is(err, errTaken):
			b.store.log.Warn("another owner has put a record of ours anew, it is theirs now", "dir", b.path, "key", l.key)
		case err != nil:
			errs = append(errs, err)
		}
	}
	b.tell(lost, errs)
}

// tell logs how touching went, at warn level once an outage.
func (b *bucket) tell(lost int, errs []error) {
	well := lost == 0 && len(errs) == 0
	log := b.store.log
	switch {
	case well && b.outage:
		log.Info("records are kept alive again", "dir", b.path)
	case well:
	case b.outage:
		log.Debug("records are still being lost", "dir", b.path, "lost", lost, "failed", len(errs))
	case len(errs) > 0:
		log.Warn("records can't be kept alive", "dir", b.path, "failed", len(errs), "err", errs[0])
	default:
		log.Warn("records were lost, and are written again", "dir", b.path, "lost", lost)
	}
	b.outage = !well
}

// renew touches the file of l. If it is gone, renew writes it again and returns
// errLost; if it is another owner's, renew gives it up and returns errTaken.
func (b *bucket) renew(l *lease) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed || b.owned[l.file] != l {
		return nil
	}
	err := b.touchFile(l)
	switch {
	case errors.Is(err, errTaken):
		delete(b.owned, l.file)
	case errors.Is(err, errLost):
		if err := b.publish(l); err != nil {
			return err
		}
	}
	return err
}

// touchFile sets the time of change of the file of l to the present. It does so
// by writing the first byte over itself: then it is the file system that says
// what the present is.
func (b *bucket) touchFile(l *lease) error {
	dir, err := b.open()
	if err != nil {
		return err
	}
	defer shut(dir)
	f, err := l.open(dir)
	if err != nil {
		return err
	}
	return errors.Join(writeFirst(f, l.value[0]), f.Close())
}

func writeFirst(f *os.File, first byte) error {
	_, err := f.WriteAt([]byte{first}, 0)
	return err
}
