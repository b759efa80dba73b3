package kept

import (
	"encoding/json"
	"fmt"
	"testing"

	"github.com/request-migration/migrate/pkg/stream"
)

func TestItems(t *testing.T) {
	given := []stream.Annotated{
		{Data: stream.String("a")},
		{Data: []byte(`{"text":"b"}`), Event: "head", ID: "1", Comment: []string{"c"}},
		{Event: "ping"},
		{Data: stream.String("d")},
	}
	var k Items
	size := 0
	for _, a := range given {
		b := a
		b.Data = append([]byte(nil), a.Data...)
		k.Add(b)
		for i := range b.Data {
			b.Data[i] = '!' // it was copied
		}
		line, err := json.Marshal(a)
		if err != nil {
			t.Fatal(err)
		}
		size += len(line) + len(",")
	}
	all := k.All()
	if len(all) != len(given) || k.Size() < size {
		t.Fatalf("%d items of %d bytes, want %d of %d at least", len(all), k.Size(), len(given), size)
	}
	k.Add(stream.Annotated{Data: stream.String("more")}) // does not touch them
	for n := range given {
		if got, want := fmt.Sprintf("%q", all[n]), fmt.Sprintf("%q", given[n]); got != want {
			t.Errorf("item %d is %s, want %s", n, got, want)
		}
	}
}
