// Package kept holds the items of an answer in little memory: most are a few bytes of data and
// nothing else.
package kept

import (
	"encoding/json"

	"github.com/request-migration/migrate/pkg/stream"
)

// Items are the items of an answer so far. The zero value has none.
type Items struct {
	data []byte
	ends []int // of each item, in data
	more []more
	size int
}

// more is what an item has besides its data. Few have anything.
type more struct {
	item int
	stream.Annotated
}

// BesideItem is how many bytes the prefix of a request has for an item besides its data:
// {"data":},
const BesideItem = 10

// Add adds a copy of an item.
func (k *Items) Add(a stream.Annotated) {
	k.size += len(a.Data) + BesideItem
	if a.Event != "" || a.ID != "" || a.Comment != nil {
		rest := a
		rest.Data = nil
		k.more = append(k.more, more{len(k.ends), rest})
		line, err := json.Marshal(rest)
		if err != nil {
			panic(err) // strings can be marshalled
		}
		k.size += len(line)
	}
	k.data = append(k.data, a.Data...)
	k.ends = append(k.ends, len(k.data))
}

// Size returns how many bytes they take as the prefix of a request.
func (k *Items) Size() int { return k.size }

// All returns the items. They share the memory of k.
func (k *Items) All() []stream.Annotated {
	items := make([]stream.Annotated, len(k.ends))
	for _, m := range k.more {
		items[m.item] = m.Annotated
	}
	begin := 0
	for n, end := range k.ends {
		if end > begin {
			items[n].Data = k.data[begin:end:end]
		}
		begin = end
	}
	return items
}
