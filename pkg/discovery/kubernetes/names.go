package kubernetes

import (
	"crypto/sha256"
	"encoding/hex"
	"strconv"
	"strings"
)

// domain begins the names of this package's labels and annotations.
const domain = "request-migration.github.io/"

const (
	keyAnnotation    = domain + "key"
	valueAnnotation  = domain + "record"
	base64Annotation = domain + "record-base64" // for a value that is not UTF-8 text
	briefAnnotation  = domain + "brief-"        // followed by the hash of a key

	managerLabel = "app.kubernetes.io/managed-by"
	manager      = "migrate"
	underLabel   = domain + "under-" // followed by a number of segments
)

const (
	// minUnder and maxUnder are the numbers of segments by which records are
	// labelled: the fewest that a watch may ask for, and those of an endpoint
	// (v1/instances/dynamo/backend/generate). A watch of a longer prefix leaves out
	// the rest by itself.
	minUnder = 2
	maxUnder = 5

	// briefShards is how many objects the records with a ttl under one endpoint share.
	// One object has room for about a hundred reports, and is sent as a whole to every
	// watch when one of them changes.
	briefShards = 16
)

// hash returns a hash of s that fits into a label.
func hash(s string) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:16])
}

// first returns the first n segments of a key, or all that come before its last one if
// there are fewer.
func first(key string, n int) (segments string, count int) {
	end := 0
	for count < n {
		next := strings.IndexByte(key[end:], '/')
		if next < 0 {
			break
		}
		count++
		end += next + 1
	}
	return strings.TrimSuffix(key[:end], "/"), count
}

// labels returns the labels of an object with records whose keys agree in the segments
// that count.
func labels(key string) map[string]string {
	all := map[string]string{managerLabel: manager}
	_, most := first(key, maxUnder)
	for n := minUnder; n <= most; n++ {
		segments, _ := first(key, n)
		all[underLabel+strconv.Itoa(n)] = hash(segments)
	}
	return all
}

// selector returns the label selector of the objects whose records may be under prefix.
func selector(prefix string) string {
	segments, n := first(prefix, maxUnder)
	return underLabel + strconv.Itoa(n) + "=" + hash(segments)
}

// keptName returns the name of the object that keeps a key: something to recognise, and
// a hash.
func keptName(key string) string { return readable(key) + "-" + hash(key) }

// briefName returns the name of the object that has a key's record with a ttl. It is the
// same for every store, so that a record replaces the last one under its key.
func briefName(key string) string {
	group, _ := first(key, maxUnder)
	last := key[strings.LastIndexByte(key, '/')+1:]
	sum := sha256.Sum256([]byte(last))
	shard := strconv.Itoa(int(sum[0]) % briefShards)
	return readable(group) + "-brief-" + hash(group)[:16] + "-" + shard
}

// readable turns a key into the beginning of an object's name: lower-case letters,
// digits and hyphens, 120 at most, a letter or digit first.
func readable(key string) string {
	var name strings.Builder
	name.WriteString(manager)
	for _, r := range key {
		switch {
		case 'a' <= r && r <= 'z', '0' <= r && r <= '9', r == '-':
		case 'A' <= r && r <= 'Z':
			r += 'a' - 'A'
		default:
			r = '-'
		}
		if name.Len() == len(manager) {
			name.WriteByte('-')
		}
		if name.Len() >= 120 {
			break
		}
		name.WriteRune(r)
	}
	return name.String()
}
