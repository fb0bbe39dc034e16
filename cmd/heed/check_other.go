//go:build !linux

package main

func checkFileSystem(string, string) []finding { return nil }
