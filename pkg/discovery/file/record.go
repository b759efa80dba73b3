package file

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"

	"github.com/request-migration/migrate/pkg/discovery"
)

const (
	// maxName is the longest name in bytes that file systems take, by and large.
	maxName = 255
	// tempPrefix begins the names of files that are no records, as in Dynamo.
	tempPrefix = ".tmp_"
	// hashPrefix begins the names of records whose own names would be too long.
	// No encoded name has a hyphen.
	hashPrefix = "sha256-"
	// magic begins the content of a file that has a header.
	magic = "#migrate "
	// maxKey bounds a header. It is far beyond what a key is made of.
	maxKey = 16 << 10
	// maxFile is the size of the largest file that can be a record: JSON may
	// write a byte of the key as six.
	maxFile = discovery.MaxValue + 6*maxKey + 256
)

const upperHex = "0123456789ABCDEF"

// fileName returns the name of the file for what follows the bucket in a key:
// every byte that is no ASCII letter or digit is percent-encoded, as Dynamo has
// it. So it has no separator and no dot, whatever the key. A name that file
// systems would not take is hashed; the key is then in the file's header.
func fileName(rest string) string {
	var name strings.Builder
	for i := range len(rest) {
		if c := rest[i]; alphanumeric(c) {
			name.WriteByte(c)
		} else {
			name.WriteByte('%')
			name.WriteByte(upperHex[c>>4])
			name.WriteByte(upperHex[c&15])
		}
	}
	if name.Len() > maxName {
		sum := sha256.Sum256([]byte(rest))
		return hashPrefix + hex.EncodeToString(sum[:])
	}
	return name.String()
}

// hashed reports whether name is that of a record whose key only its header has.
func hashed(name string) bool {
	digits, ok := strings.CutPrefix(name, hashPrefix)
	return ok && len(digits) == 2*sha256.Size && strings.Trim(digits, "0123456789abcdef") == ""
}

// keyOf returns the key whose file has that name in the bucket. It has none if
// the name is not the very one that fileName gives: such a file isn't ours.
func keyOf(bucket, name string) (key string, ok bool) {
	rest := make([]byte, 0, len(name))
	for i := 0; i < len(name); i++ {
		c := name[i]
		if c == '%' && i+2 < len(name) {
			hi, lo := strings.IndexByte(upperHex, name[i+1]), strings.IndexByte(upperHex, name[i+2])
			if hi < 0 || lo < 0 {
				return "", false
			}
			c = byte(hi<<4 | lo)
			i += 2
			if alphanumeric(c) {
				return "", false
			}
		} else if !alphanumeric(c) {
			return "", false
		}
		rest = append(rest, c)
	}
	key = bucket + "/" + string(rest)
	// The value does not matter here.
	if len(name) > maxName || discovery.CheckRecord(key, []byte{0}, 0) != nil {
		return "", false
	}
	return key, true
}

func alphanumeric(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
}

// bucketOf splits a key or prefix after its second segment, which is where a
// directory's name ends and a file's begins.
func bucketOf(key string) (bucket, rest string) {
	first, rest, _ := strings.Cut(key, "/")
	second, rest, _ := strings.Cut(rest, "/")
	return first + "/" + second, rest
}

func tempName() string { return tempPrefix + strconv.FormatUint(rand.Uint64(), 16) }

func isTemp(name string) bool { return strings.HasPrefix(name, tempPrefix) }

// foreign reports whether a name is of the kind that systems and programs leave
// in any directory, of which nobody needs to be warned.
func foreign(name string) bool {
	switch name {
	case "lost+found", "Thumbs.db", "desktop.ini":
		return true
	}
	return strings.HasPrefix(name, ".") // .nfs…, .DS_Store, ._…, .snapshot
}

// A header is the first line of a file whose name and time of change don't say
// everything about its record. Dynamo's records have none.
type header struct {
	Key   string `json:"key,omitempty"` // of a record with a hashed name
	TTLMS int64  `json:"ttl_ms,omitempty"`
}

// ttl returns how long the record stands after it was put: 0 for one that is
// kept alive.
func (h header) ttl() time.Duration {
	return time.Duration(min(h.TTLMS, math.MaxInt64/int64(time.Millisecond))) * time.Millisecond
}

// encode returns the content of the file with that name: the value, after a
// header where one is needed.
func encode(name, key string, value []byte, ttl time.Duration) ([]byte, error) {
	// Rounded up, so that it stands as long as was asked for.
	h := header{TTLMS: int64((ttl + time.Millisecond - 1) / time.Millisecond)}
	if hashed(name) {
		h.Key = key
	}
	if h == (header{}) && !bytes.HasPrefix(value, []byte(magic)) {
		return bytes.Clone(value), nil
	}
	line, err := json.Marshal(h)
	if err != nil {
		return nil, err
	}
	return fmt.Appendf(nil, "%s%s\n%s", magic, line, value), nil
}

// decode reads what encode has written. The value is part of content.
func decode(content []byte) (h header, value []byte, err error) {
	line, ok := bytes.CutPrefix(content, []byte(magic))
	if !ok {
		return header{}, content, nil
	}
	line, value, ok = bytes.Cut(line, []byte("\n"))
	if !ok {
		return header{}, nil, errors.New("its header has no end")
	}
	if err := json.Unmarshal(line, &h); err != nil || h.TTLMS < 0 {
		return header{}, nil, fmt.Errorf("its header is %q", line)
	}
	return h, value, nil
}

// recordIn returns the record that the file with that name in the bucket has
// as its content, and how long it stands after it was put.
func recordIn(bucket, name string, content []byte) (discovery.Record, time.Duration, error) {
	h, value, err := decode(content)
	if err != nil {
		return discovery.Record{}, 0, err
	}
	key, ok := keyOf(bucket, name)
	if hashed(name) {
		of, rest := bucketOf(h.Key)
		key, ok = h.Key, of == bucket && fileName(rest) == name
	}
	if !ok {
		return discovery.Record{}, h.ttl(), errors.New("its name is not that of its record")
	}
	if err := discovery.CheckRecord(key, value, 0); err != nil {
		return discovery.Record{}, h.ttl(), err
	}
	return discovery.Record{Key: key, Value: value}, h.ttl(), nil
}
