//go:build !race

package router

// simSeeds is how many seeds an ordinary run simulates.
const simSeeds = 10_000
