package remote

import (
	"context"
	"time"

	"github.com/request-migration/migrate/pkg/discovery"
	"github.com/request-migration/migrate/pkg/discovery/internal/latest"
)

// A View is the set of one watch: a follower changes it, and a reader takes it.
type View struct {
	Changed <-chan struct{}           // has a token when there is a new set to take
	Take    func() discovery.Snapshot // returns the set as it is now
}

// Watch runs follow, which keeps the view current until its context ends, and yields sets
// of the view until that fails. It returns nil if yield wants no more, the caller's error,
// the cause of the life's end, or why follow ended. A reader that is slower than the
// changes gets them together: the next set comes a pause after the last.
func (l *Life) Watch(caller context.Context, v View, follow func(context.Context) error, yield func(discovery.Snapshot) bool) error {
	ctx, leave, err := l.Enter(caller)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	var failure error // set before ended is closed
	ended := make(chan struct{})
	go func() {
		defer leave()
		defer close(ended)
		failure = follow(ctx)
	}()
	defer func() {
		cancel()
		<-ended
	}()
	rested := time.NewTimer(0) // the end of the pause before the next set
	defer rested.Stop()
	for {
		select {
		case <-ended:
		case <-ctx.Done():
		case <-rested.C:
			select {
			case <-ended:
			case <-ctx.Done():
			case <-v.Changed:
			}
		}
		// Whichever channel was received from, nobody wants a set after the end.
		switch {
		case caller.Err() != nil:
			return caller.Err()
		case l.Context.Err() != nil:
			return context.Cause(l.Context)
		case ctx.Err() != nil:
			<-ended // the follower ended by itself
			return failure
		}
		select {
		case <-ended:
			return failure
		default:
		}
		snap := v.Take()
		rested.Reset(Pace(len(snap.Records)))
		if !yield(snap) {
			return nil
		}
	}
}

// Pace returns the pause from one set to the next while records keep changing. A set costs
// its reader about a microsecond a record.
func Pace(records int) time.Duration {
	return latest.Pause(time.Duration(records)*time.Microsecond, time.Second)
}
