//go:build race

package twilio

const raceEnabled = true // under the race detector sync.Pool drops items at random
