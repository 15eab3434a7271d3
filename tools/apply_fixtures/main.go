// Reads scenarios of applies and updates of a Pod and prints what Kubernetes' own field manager makes of each, over the
// OpenAPI document named as argument. See scenarios.py beside it.
package main

import (
	"encoding/json"
	"os"

	"k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/managedfields"
	"k8s.io/kube-openapi/pkg/validation/spec"
)

func clean(v interface{}) {
	switch t := v.(type) {
	case map[string]interface{}:
		for k, c := range t {
			if c == nil {
				delete(t, k)
			} else {
				clean(c)
			}
		}
	case []interface{}:
		for _, c := range t {
			clean(c)
		}
	}
}

type conv struct{}

func (conv) Convert(in, out, context interface{}) error { panic("x") }
func (conv) ConvertToVersion(in runtime.Object, _ runtime.GroupVersioner) (runtime.Object, error) {
	return in, nil
}
func (conv) ConvertFieldLabel(gvk schema.GroupVersionKind, l, v string) (string, string, error) {
	return l, v, nil
}

type def struct{}

func (def) Default(runtime.Object) {}

type creater struct{}

func (creater) New(kind schema.GroupVersionKind) (runtime.Object, error) {
	u := &unstructured.Unstructured{}
	u.SetGroupVersionKind(kind)
	return u, nil
}

type op struct {
	Op      string
	Manager string
	Force   bool
	Obj     map[string]interface{}
}
type res struct {
	Obj    map[string]interface{} `json:"obj,omitempty"`
	Error  string                 `json:"error,omitempty"`
	Causes []string               `json:"causes,omitempty"`
}

func main() {
	var doc struct {
		Components struct{ Schemas map[string]*spec.Schema }
	}
	b, _ := os.ReadFile(os.Args[1])
	if err := json.Unmarshal(b, &doc); err != nil {
		panic(err)
	}
	tc, err := managedfields.NewTypeConverter(doc.Components.Schemas, false)
	if err != nil {
		panic(err)
	}
	gvk := schema.GroupVersionKind{Version: "v1", Kind: "Pod"}
	fm, err := managedfields.NewDefaultFieldManager(tc, conv{}, def{}, creater{}, gvk, gvk.GroupVersion(), "", nil)
	if err != nil {
		panic(err)
	}
	var scenarios [][]op
	if err := json.NewDecoder(os.Stdin).Decode(&scenarios); err != nil {
		panic(err)
	}
	var out [][]res
	for _, sc := range scenarios {
		var rs []res
		live := &unstructured.Unstructured{Object: map[string]interface{}{"apiVersion": "v1", "kind": "Pod", "metadata": map[string]interface{}{}}}
		for _, o := range sc {
			obj := &unstructured.Unstructured{Object: o.Obj}
			var r runtime.Object
			var err error
			if o.Op == "apply" {
				r, err = fm.Apply(live.DeepCopy(), obj, o.Manager, o.Force)
			} else {
				n := obj.DeepCopy()
				n.SetManagedFields(live.GetManagedFields())
				r, err = fm.Update(live.DeepCopy(), n, o.Manager)
			}
			if err != nil {
				e := res{Error: err.Error()}
				if s, ok := err.(*errors.StatusError); ok && s.ErrStatus.Details != nil {
					for _, c := range s.ErrStatus.Details.Causes {
						e.Causes = append(e.Causes, c.Field)
					}
				}
				rs = append(rs, e)
				continue
			}
			if r != nil {
				live = r.(*unstructured.Unstructured)
			}
			clean(live.Object)
			rs = append(rs, res{Obj: live.DeepCopy().Object})
		}
		out = append(out, rs)
	}
	json.NewEncoder(os.Stdout).Encode(out)
}
