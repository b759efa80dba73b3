package discovery_test

import (
	"strings"
	"testing"

	"github.com/request-migration/migrate/pkg/discovery"
)

const generate = "v1/instances/dynamo/backend/generate/"

func endpoint() discovery.Endpoint {
	return discovery.Endpoint{Namespace: "dynamo", Component: "backend", Name: "generate"}
}

func TestEncodeInstance(t *testing.T) {
	i := discovery.Instance{ID: 1234, Name: "server1", Endpoint: endpoint(), Transport: discovery.NDJSON, Address: "127.0.0.1:41001"}
	key, value, err := discovery.EncodeInstance(i)
	if err != nil {
		t.Fatal(err)
	}
	if want := generate + "4d2"; key != want {
		t.Errorf("the key is %s, want %s", key, want)
	}
	want := `{"type":"Endpoint","namespace":"dynamo","component":"backend","endpoint":"generate","instance_id":1234,"transport":{"ndjson":"127.0.0.1:41001"},"name":"server1"}`
	if string(value) != want {
		t.Errorf("the value is %s, want %s", value, want)
	}
	if got, err := discovery.DecodeInstance(key, value); err != nil || got != i {
		t.Errorf("it reads %+v, %v", got, err)
	}
	if !i.Routable() {
		t.Error("it is not routable")
	}
}

func TestEncodeInstanceRefuses(t *testing.T) {
	good := discovery.Instance{ID: 1, Endpoint: endpoint(), Transport: discovery.NDJSON, Address: "a:1"}
	for what, spoil := range map[string]func(*discovery.Instance){
		"no endpoint":      func(i *discovery.Instance) { i.Endpoint = discovery.Endpoint{} },
		"slash in a part":  func(i *discovery.Instance) { i.Endpoint.Name = "a/b" },
		"no transport":     func(i *discovery.Instance) { i.Transport = "" },
		"no address":       func(i *discovery.Instance) { i.Address = "" },
		"name not UTF-8":   func(i *discovery.Instance) { i.Name = "\xff" },
		"address no UTF-8": func(i *discovery.Instance) { i.Address = "\xff" },
	} {
		i := good
		spoil(&i)
		if _, value, err := discovery.EncodeInstance(i); err == nil {
			t.Errorf("%s: encoded as %s", what, value)
		}
	}
}

// dynamoRecords are records as real Dynamo deployments write them, and their
// instances.
func dynamoRecords() []struct {
	id, value string
	want      discovery.Instance
} {
	i := func(id discovery.InstanceID, transport, address string) discovery.Instance {
		return discovery.Instance{ID: id, Endpoint: endpoint(), Transport: transport, Address: address}
	}
	return []struct {
		id, value string
		want      discovery.Instance
	}{
		{
			"694d985d0f41c9a4",
			`{"component":"backend","endpoint":"generate","namespace":"dynamo","instance_id":7587888472644503972,"transport":{"nats_tcp":"dynamo_backend.generate-694d985d0f41c9a4"}}`,
			i(0x694d985d0f41c9a4, "nats_tcp", "dynamo_backend.generate-694d985d0f41c9a4"),
		},
		{
			"ffffffffffffffff",
			`{"type":"Endpoint","component":"backend","endpoint":"generate","namespace":"dynamo","instance_id":18446744073709551615,"transport":{"tcp":"10.0.0.7:41001/ffffffffffffffff/generate"}}`,
			i(1<<64-1, "tcp", "10.0.0.7:41001/ffffffffffffffff/generate"),
		},
		{
			"4d2",
			"{\n  \"type\": \"Endpoint\",\n  \"namespace\": \"dynamo\",\n  \"component\": \"backend\",\n  \"endpoint\": \"generate\",\n  \"instance_id\": 1234,\n  \"transport\": { \"http\": \"http://10.0.0.7:8081/v1/rpc/generate\" },\n  \"device_type\": \"cuda\",\n  \"request_plane_url\": \"dyn://dynamo.backend.generate\",\n  \"world_size\": 2\n}\n",
			i(1234, "http", "http://10.0.0.7:8081/v1/rpc/generate"),
		},
		{
			"20000000000001",
			`{"type":null,"component":"backend","endpoint":"generate","namespace":"dynamo","instance_id":9007199254740993,"transport":{"http_tcp": {"http_endpoint": "http://10.0.0.7:8081"}}}`,
			i(9007199254740993, "http_tcp", `{"http_endpoint":"http://10.0.0.7:8081"}`),
		},
		{
			"0",
			`{"type":"Endpoint","component":"backend","endpoint":"generate","namespace":"dynamo","instance_id":0,"transport":"local"}`,
			i(0, "local", ""),
		},
		{
			"1",
			`{"type":"Endpoint","component":"backend","endpoint":"generate","namespace":"dynamo","instance_id":1,"transport":{"http":"h","ndjson":"127.0.0.1:1","tcp":"t"}}`,
			i(1, "ndjson", "127.0.0.1:1"),
		},
		{
			"2",
			`{"type":"Endpoint","component":"backend","endpoint":"generate","namespace":"dynamo","instance_id":2,"transport":{"tcp":"t","http":"h"}}`,
			i(2, "http", "h"),
		},
		{
			"3",
			`{"type":"Endpoint","component":"backend","endpoint":"generate","namespace":"dynamo","instance_id":3,"transport":{"ndjson":""}}`,
			i(3, "ndjson", ""),
		},
	}
}

func TestDecodeDynamo(t *testing.T) {
	for _, r := range dynamoRecords() {
		got, err := discovery.DecodeInstance(generate+r.id, []byte(r.value))
		if err != nil || got != r.want {
			t.Errorf("%s\nreads %+v, %v\nwant  %+v", r.value, got, err, r.want)
		}
		if got.Routable() != (r.want.Transport == discovery.NDJSON && r.want.Address != "") {
			t.Errorf("%s is routable: %v", r.value, got.Routable())
		}
	}
}

func TestDecodeInstanceRefuses(t *testing.T) {
	const good = `{"type":"Endpoint","namespace":"dynamo","component":"backend","endpoint":"generate","instance_id":1234,"transport":{"ndjson":"a:1"},"name":"s"}`
	if _, err := discovery.DecodeInstance(generate+"4d2", []byte(good)); err != nil {
		t.Fatal(err)
	}
	for _, change := range []struct{ what, old, new string }{
		{"another type", `"Endpoint"`, `"Model"`},
		{"an empty type", `"Endpoint"`, `""`},
		{"a type that is no string", `"Endpoint"`, `1`},
		{"another namespace", `"dynamo"`, `"other"`},
		{"another component", `"backend"`, `"other"`},
		{"another endpoint", `"generate"`, `"other"`},
		{"no endpoint", `"generate"`, `""`},
		{"a slash", `"dynamo"`, `"dynamo/backend"`},
		{"another id", `1234`, `1235`},
		{"an id too large", `1234`, `18446744073709551616`},
		{"a negative id", `1234`, `-1234`},
		{"an id with a fraction", `1234`, `1234.5`},
		{"an id in a string", `1234`, `"1234"`},
		{"no id", `"instance_id":1234,`, ``},
		{"no transport", `"transport":{"ndjson":"a:1"},`, ``},
		{"a null transport", `{"ndjson":"a:1"}`, `null`},
		{"an empty transport", `{"ndjson":"a:1"}`, `{}`},
		{"a transport without a name", `{"ndjson":"a:1"}`, `{"":"a:1"}`},
		{"a list of transports", `{"ndjson":"a:1"}`, `["ndjson"]`},
		{"an ndjson address that is no string", `"a:1"`, `{"host":"a"}`},
		{"a name that is no string", `"s"`, `1`},
		{"half of it", `"transport":{"ndjson":"a:1"},"name":"s"}`, ``},
		{"more after it", `"name":"s"}`, `"name":"s"} {}`},
		{"no object", good, `[]`},
		{"nothing", good, ``},
		{"null", good, `null`},
	} {
		value := strings.Replace(good, change.old, change.new, 1)
		if value == good {
			t.Fatalf("%s changes nothing", change.what)
		}
		if got, err := discovery.DecodeInstance(generate+"4d2", []byte(value)); err == nil {
			t.Errorf("%s reads %+v", change.what, got)
		}
	}
	for _, key := range []string{
		"", "4d2", generate, generate + "4D2", generate + "04d2", generate + "4d2/", generate + "4d2/lora", "/" + generate + "4d2",
		"v1/mdc/dynamo/backend/generate/4d2", "v1/instances/dynamo/backend/generate2/4d2", "v1/instances/dynamo/generate/4d2",
	} {
		if got, err := discovery.DecodeInstance(key, []byte(good)); err == nil {
			t.Errorf("under %q it reads %+v", key, got)
		}
	}
}

func FuzzDecodeInstance(f *testing.F) {
	for _, r := range dynamoRecords() {
		f.Add(generate+r.id, []byte(r.value))
	}
	for _, value := range []string{
		``, `{}`, `null`, `[]`, `"x"`, "\x00", "\xff\xfe", `{"transport":{}}`, `{"transport":{"ndjson":null}}`,
		`{"type":"Endpoint","namespace":"dynamo","component":"backend","endpoint":"generate","instance_id":1,"transport":{"ndjson":"127.0.0.1:1"},"name":"żółć \u0000\ud800"}`,
		`{"TYPE":"Endpoint","Namespace":"dynamo","namespace":"dynamo","component":"backend","endpoint":"generate","instance_id":1e0,"transport":{"x":[[[]]]}}`,
		`{"namespace":"dynamo","component":"backend","endpoint":"generate","instance_id":1,"transport":{"x":{"` + "\xff" + `":1}}}`,
		strings.Repeat(`{"transport":`, 1000),
	} {
		f.Add(generate+"1", []byte(value))
	}
	f.Fuzz(func(t *testing.T, key string, value []byte) {
		i, err := discovery.DecodeInstance(key, value)
		if err != nil {
			return
		}
		if !i.Routable() && i.Transport == discovery.NDJSON {
			return // no address: listed, never registered
		}
		key2, value2, err := discovery.EncodeInstance(i)
		if err != nil {
			t.Fatalf("%q under %q reads %+v, which can't be encoded: %v", value, key, i, err)
		}
		if key2 != key {
			t.Errorf("%+v was under %q and goes under %q", i, key, key2)
		}
		if again, err := discovery.DecodeInstance(key2, value2); err != nil || again != i {
			t.Errorf("%+v reads %+v, %v, having been encoded", i, again, err)
		}
		if err := discovery.CheckRecord(key2, value2, 0); err != nil {
			t.Errorf("%+v is no record for a store: %v", i, err)
		}
	})
}
