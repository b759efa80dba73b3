//go:build race

package router

// simSeeds is how many seeds an ordinary run simulates. The race detector makes
// each some ten times as slow.
const simSeeds = 500
