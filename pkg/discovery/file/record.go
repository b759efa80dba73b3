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
	// maxName is the longest name, in bytes, that common file systems take.
	maxName = 255
	// tempPrefix begins the names of temporary files, as in Dynamo.
	tempPrefix = ".tmp_"
	// hashPrefix begins the names of records whose encoded names would be too long.
	// No encoded name has a hyphen.
	hashPrefix = "sha256-"
	// magic begins the content of a file that has a header.
	magic = "#migrate "
	// maxKey is the longest key in bytes, which bounds a header. Keys in use have
	// about 100.
	maxKey = 16 << 10
	// maxFile is the size in bytes of the largest file that can be a record: JSON
	// writes a byte of the key as six at most.
	maxFile = discovery.MaxValue + 6*maxKey + 256
)

const upperHex = "0123456789ABCDEF"

// fileName returns the name of the file for the rest of a key after the bucket. As
// in Dynamo, every byte that is not an ASCII letter or digit is percent-encoded, so
// that a name never has a separator or a dot. A name that would be too long for
// file systems is a hash; the file's header has the key then.
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

// hashed reports whether name is a hash, so that only the header has the key.
func hashed(name string) bool {
	digits, ok := strings.CutPrefix(name, hashPrefix)
	return ok && len(digits) == 2*sha256.Size && strings.Trim(digits, "0123456789abcdef") == ""
}

// keyOf returns the key whose file has that name in the bucket. It returns false if
// fileName would not give that very name: the file is not a store's.
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
	// The value does not matter here, but an empty one is an error.
	if len(name) > maxName || discovery.CheckRecord(key, []byte{0}, 0) != nil {
		return "", false
	}
	return key, true
}

func alphanumeric(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
}

// bucketOf splits a key or prefix after its second segment, where the directory's
// name ends and the file's begins.
func bucketOf(key string) (bucket, rest string) {
	first, rest, _ := strings.Cut(key, "/")
	second, rest, _ := strings.Cut(rest, "/")
	return first + "/" + second, rest
}

// tempName returns a new random name for a temporary file.
func tempName() string { return tempPrefix + strconv.FormatUint(rand.Uint64(), 16) }

func isTemp(name string) bool { return strings.HasPrefix(name, tempPrefix) }

// foreign reports whether name is one that systems and programs leave in any
// directory, which is not worth a warning.
func foreign(name string) bool {
	switch name {
	case "lost+found", "Thumbs.db", "desktop.ini":
		return true
	}
	return strings.HasPrefix(name, ".") // .nfs…, .DS_Store, ._…, .snapshot
}

// A header is the first line of a file whose name and modification time don't say
// everything about its record. Dynamo's records have none.
type header struct {
	Key   string `json:"key,omitempty"` // of a record with a hashed name
	TTLMS int64  `json:"ttl_ms,omitempty"`
}

// ttl returns how long the record stands after it was put: 0 if its owner keeps it
// alive.
func (h header) ttl() time.Duration {
	return time.Duration(min(h.TTLMS, math.MaxInt64/int64(time.Millisecond))) * time.Millisecond
}

// encode returns the content of the file with that name: the value, after a header
// if one is needed.
func encode(name, key string, value []byte, ttl time.Duration) ([]byte, error) {
	// Round up, so that the record stands no shorter than was asked for.
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

// decode reads what encode writes. The value is a part of content.
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

// recordIn returns the record in the file with that name and content in the bucket,
// and how long it stands after it was put.
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
