package metrics

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/request-migration/migrate/pkg/router"
)

// tierDescs describe the gauges that are read from a router's tiers.
type tierDescs struct {
	source, avail, halfOpen, backingOff, spare, down, lost, byOthers, stale *prometheus.Desc
}

func newTierDescs(labels prometheus.Labels) tierDescs {
	desc := func(name, help string) *prometheus.Desc { return prometheus.NewDesc(name, help, nil, labels) }
	return tierDescs{
		source:     desc("migrate_router_instances_source", "Instances that discovery lists and that requests can be sent to."),
		avail:      desc("migrate_router_instances_avail", "Instances of the source that requests go to."),
		halfOpen:   desc("migrate_router_instances_half_open", "Instances that are back from a report and have not shown yet that they serve."),
		backingOff: desc("migrate_router_instances_backing_off", "Instances of avail that are spared after they refused a request as overloaded."),
		lost:       desc("migrate_router_instances_lost", "Instances that discovery lost with most others, kept as a last resort; not in source."),
		spare:      desc("migrate_router_instances_spare", "Instances of the source that only reports of other clients keep out of avail."),
		down:       desc("migrate_router_instances_down", "Instances of the source that this router has put down."),
		byOthers:   desc("migrate_router_instances_reported_by_others", "Instances that other clients report down now."),
		stale:      desc("migrate_router_source_stale", "1 while discovery can't be read and the source is what was known last, else 0."),
	}
}

func (d *tierDescs) all() []*prometheus.Desc {
	return []*prometheus.Desc{d.source, d.avail, d.halfOpen, d.backingOff, d.spare, d.down, d.lost, d.byOthers, d.stale}
}

func (d *tierDescs) describe(descs chan<- *prometheus.Desc) {
	for _, desc := range d.all() {
		descs <- desc
	}
}

// collect sends the gauges of t, which is one moment: source is the sum of
// avail, spare and down.
func (d *tierDescs) collect(metrics chan<- prometheus.Metric, t *router.Tiers) {
	stale := 0
	if t.Stale != nil {
		stale = 1
	}
	down := len(t.Source) - len(t.Avail) - len(t.Spare)
	halfOpen := 0
	for _, p := range t.Source {
		if p.HalfOpen() {
			halfOpen++
		}
	}
	for i, n := range []int{
		len(t.Source), len(t.Avail), halfOpen, t.BackingOff, len(t.Spare), down, len(t.Lost), len(t.ByOthers), stale,
	} {
		metrics <- prometheus.MustNewConstMetric(d.all()[i], prometheus.GaugeValue, float64(n))
	}
}
