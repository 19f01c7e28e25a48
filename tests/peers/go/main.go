// Verifies an archive with the libraries of Go's checksum database and another zstd, knowing only
// docs/archive-format.md: the signature of the checkpoint, the root, every record's inclusion, that
// an older checkpoint is a prefix, every object's SHA-256, and every segment's own tree.
//
// usage: go run . DIRECTORY PUBLIC_KEY [OLD_CHECKPOINT]
package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

type record struct {
	Seq     int64  `json:"seq"`
	Kind    string `json:"kind"`
	Segment *struct {
		Object    string `json:"object"`
		SHA256    string `json:"sha256"`
		Size      int64  `json:"size"`
		RawSize   int64  `json:"raw_size"`
		Count     int64  `json:"count"`
		EventRoot string `json:"event_root"`
	} `json:"segment"`
}

func check(err error, what string) {
	if err != nil {
		fmt.Fprintf(os.Stderr, "NOT PROVEN: %s: %v\n", what, err)
		os.Exit(1)
	}
}

func must(ok bool, what string) {
	if !ok {
		check(fmt.Errorf("does not hold"), what)
	}
}

// head reads a signed checkpoint.
func head(file string, verifier note.Verifier) tlog.Tree {
	text, err := os.ReadFile(file)
	check(err, file)
	opened, err := note.Open(text, note.VerifierList(verifier))
	check(err, file)
	lines := strings.Split(opened.Text, "\n")
	must(len(lines) >= 3 && lines[0] == verifier.Name(), file+": origin")
	size, err := strconv.ParseInt(lines[1], 10, 64)
	check(err, file)
	root, err := tlog.ParseHash(lines[2])
	check(err, file)
	return tlog.Tree{N: size, Hash: root}
}

// path of a tile: Go's has the height in it, the specification's has not.
func path(dir string, tile tlog.Tile) string {
	return filepath.Join(dir, strings.Replace(tile.Path(), "tile/8/", "tile/", 1))
}

type reader struct{ dir string }

func (reader) Height() int                              { return 8 }
func (reader) SaveTiles(tiles []tlog.Tile, data [][]byte) {}
func (r reader) ReadTiles(tiles []tlog.Tile) ([][]byte, error) {
	var all [][]byte
	for _, tile := range tiles {
		data, err := os.ReadFile(path(r.dir, tile))
		if err != nil {
			return nil, err
		}
		all = append(all, data)
	}
	return all, nil
}

type memory []tlog.Hash

func (m memory) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	var all []tlog.Hash
	for _, index := range indexes {
		all = append(all, m[index])
	}
	return all, nil
}

// segment checks an object against its record, and returns how many lines it has.
func segment(dir string, r record, decoder *zstd.Decoder) int64 {
	s := r.Segment
	object, err := os.ReadFile(filepath.Join(dir, s.Object))
	check(err, s.Object)
	sum := sha256.Sum256(object)
	must(hex.EncodeToString(sum[:]) == s.SHA256 && int64(len(object)) == s.Size, s.Object+": digest")
	lines, err := decoder.DecodeAll(object, nil)
	check(err, s.Object)
	must(int64(len(lines)) == s.RawSize && bytes.HasSuffix(lines, []byte("\n")), s.Object+": lines")
	var hashes memory
	var count int64
	for _, line := range bytes.Split(lines[:len(lines)-1], []byte("\n")) {
		more, err := tlog.StoredHashes(count, line, hashes)
		check(err, s.Object)
		hashes = append(hashes, more...)
		count++
	}
	root, err := tlog.TreeHash(count, hashes)
	check(err, s.Object)
	want, err := base64.StdEncoding.DecodeString(s.EventRoot)
	check(err, s.Object)
	must(count == s.Count && bytes.Equal(root[:], want), s.Object+": tree of lines")
	return count
}

func main() {
	dir, key := os.Args[1], os.Args[2]
	verifier, err := note.NewVerifier(key)
	check(err, "key")
	tree := head(filepath.Join(dir, "checkpoint"), verifier)
	hashes := tlog.TileHashReader(tree, reader{dir})
	decoder, err := zstd.NewReader(nil)
	check(err, "zstd")
	var seq, lines int64
	for index := int64(0); index*256 < tree.N; index++ {
		width := min(tree.N-index*256, 256)
		tile := tlog.Tile{H: 8, L: 0, N: index, W: int(width)}
		bundle, err := os.ReadFile(strings.Replace(path(dir, tile), "tile/0/", "tile/entries/", 1))
		check(err, "bundle")
		for ; len(bundle) > 0; seq++ {
			length := int(binary.BigEndian.Uint16(bundle))
			entry := bundle[2 : 2+length]
			bundle = bundle[2+length:]
			proof, err := tlog.ProveRecord(tree.N, seq, hashes)
			check(err, "inclusion")
			check(tlog.CheckRecord(proof, tree.N, tree.Hash, seq, tlog.RecordHash(entry)), "inclusion")
			var r record
			check(json.Unmarshal(entry, &r), "record")
			must(r.Seq == seq, "record's place")
			if r.Segment != nil {
				lines += segment(dir, r, decoder)
			}
		}
	}
	must(seq == tree.N, "number of records")
	if len(os.Args) > 3 {
		old := head(os.Args[3], verifier)
		proof, err := tlog.ProveTree(tree.N, old.N, hashes)
		check(err, "consistency")
		check(tlog.CheckTree(proof, tree.N, tree.Hash, old.N, old.Hash), "consistency")
	}
	fmt.Printf("OK: %d records, %d lines\n", tree.N, lines)
}
