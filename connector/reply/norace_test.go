//go:build !race

package reply

const underRace = false
