// Reads triples of Pods (last applied, modified, live) and prints, for each, the three-way patch that kubectl apply
// sends and what the Kubernetes API server makes of it. See scenarios.py beside it.
package main

import (
	"encoding/json"
	"os"

	core "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
)

type result struct {
	Patch json.RawMessage `json:"patch"`
	After json.RawMessage `json:"after"`
	Error string          `json:"error,omitempty"`
}

func main() {
	var triples [][3]json.RawMessage
	if err := json.NewDecoder(os.Stdin).Decode(&triples); err != nil {
		panic(err)
	}
	meta, err := strategicpatch.NewPatchMetaFromStruct(core.Pod{})
	if err != nil {
		panic(err)
	}
	results := []result{}
	for _, triple := range triples {
		patch, err := strategicpatch.CreateThreeWayMergePatch(triple[0], triple[1], triple[2], meta, true)
		if err != nil {
			results = append(results, result{Error: err.Error()})
			continue
		}
		after, err := strategicpatch.StrategicMergePatch(triple[2], patch, core.Pod{})
		if err != nil {
			results = append(results, result{Patch: patch, Error: err.Error()})
			continue
		}
		results = append(results, result{Patch: patch, After: after})
	}
	if err := json.NewEncoder(os.Stdout).Encode(results); err != nil {
		panic(err)
	}
}
