package etcd

import (
	"context"
	"fmt"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// Left returns how long the record under key stands unless its owner renews its
// lease, to half a second: 0 if it isn't there, or has no lease.
func (s *Store) Left(ctx context.Context, key string) (time.Duration, error) {
	ctx, leave, err := s.enter(ctx)
	if err != nil {
		return 0, err
	}
	defer leave()
	var left time.Duration
	err = s.call(ctx, func(ctx context.Context) error {
		record, err := s.client.Get(ctx, key)
		if err != nil || len(record.Kvs) == 0 || record.Kvs[0].Lease == 0 {
			return err
		}
		lease, err := s.client.TimeToLive(ctx, clientv3.LeaseID(record.Kvs[0].Lease))
		if err != nil {
			return err
		}
		// etcd rounds down; -1 stands for a lease that has expired meanwhile.
		left = time.Duration(lease.TTL)*time.Second + time.Second/2
		return nil
	})
	if err != nil {
		return 0, fmt.Errorf("asking how long %s stands: %w", key, err)
	}
	return max(left, 0), nil
}
