// Prints random objects of every kind that a client may send as protobuf, each encoded by Kubernetes' own serializer and
// as Go's JSON, for tests/unit/objects/test_protobuf.py to compare with:
//
//	cd tools/protobuf_fixtures && go run . 4 | gzip -9n > ../../tests/golden/protobuf/random.json.gz
//
// The first round is empty objects; the later ones fill fields at random, by a fixed seed.
package main

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/rand"
	"os"
	"reflect"
	"time"

	authn "k8s.io/api/authentication/v1"
	authz "k8s.io/api/authorization/v1"
	coord "k8s.io/api/coordination/v1"
	core "k8s.io/api/core/v1"
	net "k8s.io/api/networking/v1"
	policy "k8s.io/api/policy/v1"
	rbac "k8s.io/api/rbac/v1"
	sched "k8s.io/api/scheduling/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
	"k8s.io/apimachinery/pkg/util/intstr"
)

var r *rand.Rand

func fill(v reflect.Value, depth int) {
	switch v.Interface().(type) {
	case meta.Time:
		if r.Intn(4) > 0 {
			v.Set(reflect.ValueOf(meta.Unix(r.Int63n(4e9), 0)))
		}
		return
	case meta.MicroTime:
		v.Set(reflect.ValueOf(meta.NewMicroTime(time.Unix(r.Int63n(4e9), r.Int63n(1e6)*1000))))
		return
	case resource.Quantity:
		v.Set(reflect.ValueOf(resource.MustParse([]string{"0", "1", "100m", "1Gi", "1500m", "2k"}[r.Intn(6)])))
		return
	case intstr.IntOrString:
		if r.Intn(2) == 0 {
			v.Set(reflect.ValueOf(intstr.FromInt32(r.Int31n(3) * 40)))
		} else {
			v.Set(reflect.ValueOf(intstr.FromString([]string{"", "http", "50%"}[r.Intn(3)])))
		}
		return
	case meta.FieldsV1:
		v.Set(reflect.ValueOf(meta.FieldsV1{Raw: []byte(`{"f:spec":{"f:x":{}}}`)}))
		return
	case runtime.RawExtension, meta.TypeMeta:
		return
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString([]string{"", "a", "täxt", "Always"}[r.Intn(4)])
	case reflect.Bool:
		v.SetBool(r.Intn(2) == 0)
	case reflect.Int, reflect.Int32:
		v.SetInt([]int64{0, 1, -1, 80, 1 << 30}[r.Intn(5)])
	case reflect.Int64:
		v.SetInt([]int64{0, 1, -1, 80, 1 << 60, -(1 << 62)}[r.Intn(6)])
	case reflect.Uint8:
		v.SetUint(uint64(r.Intn(256)))
	case reflect.Ptr:
		if r.Intn(3) > 0 && depth < 8 {
			p := reflect.New(v.Type().Elem())
			fill(p.Elem(), depth+1)
			v.Set(p)
		}
	case reflect.Slice:
		if depth < 8 && r.Intn(3) > 0 {
			n := 1 + r.Intn(2)
			s := reflect.MakeSlice(v.Type(), n, n)
			for i := 0; i < n; i++ {
				fill(s.Index(i), depth+1)
			}
			v.Set(s)
		}
	case reflect.Map:
		if r.Intn(3) > 0 {
			m := reflect.MakeMap(v.Type())
			for i := 0; i < 1+r.Intn(2); i++ {
				k := reflect.New(v.Type().Key()).Elem()
				k.SetString(fmt.Sprintf("k%d", i))
				e := reflect.New(v.Type().Elem()).Elem()
				fill(e, depth+1)
				m.SetMapIndex(k, e)
			}
			v.Set(m)
		}
	case reflect.Struct:
		for i := 0; i < v.NumField(); i++ {
			if v.Type().Field(i).IsExported() {
				fill(v.Field(i), depth+1)
			}
		}
	default:
		panic(v.Kind())
	}
}

func main() {
	scheme := runtime.NewScheme()
	for _, f := range []func(*runtime.Scheme) error{core.AddToScheme, authn.AddToScheme, authz.AddToScheme, coord.AddToScheme, net.AddToScheme, policy.AddToScheme, rbac.AddToScheme, sched.AddToScheme} {
		if err := f(scheme); err != nil {
			panic(err)
		}
	}
	s := protobuf.NewSerializer(scheme, scheme)
	var out []map[string]string
	kinds := []schema.GroupVersionKind{}
	add := func(g, v string, ks ...string) {
		for _, k := range ks {
			kinds = append(kinds, schema.GroupVersionKind{Group: g, Version: v, Kind: k})
		}
	}
	add("", "v1", "Namespace", "Pod", "Node", "Event", "ConfigMap", "Secret", "ServiceAccount", "ResourceQuota", "LimitRange", "Binding", "DeleteOptions")
	add("scheduling.k8s.io", "v1", "PriorityClass")
	add("networking.k8s.io", "v1", "NetworkPolicy")
	add("policy", "v1", "PodDisruptionBudget", "Eviction", "DeleteOptions", "CreateOptions", "UpdateOptions", "PatchOptions")
	add("coordination.k8s.io", "v1", "Lease")
	add("authentication.k8s.io", "v1", "TokenRequest", "TokenReview", "SelfSubjectReview")
	add("authorization.k8s.io", "v1", "SubjectAccessReview", "LocalSubjectAccessReview", "SelfSubjectAccessReview", "SelfSubjectRulesReview")
	add("rbac.authorization.k8s.io", "v1", "Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding")
	rounds := 3
	if len(os.Args) > 1 {
		fmt.Sscan(os.Args[1], &rounds)
	}
	for round := 0; round < rounds; round++ {
		for _, gvk := range kinds {
			r = rand.New(rand.NewSource(int64(round)*1000 + int64(len(gvk.Kind)) + 7))
			obj, err := scheme.New(gvk)
			if err != nil {
				panic(err)
			}
			if round > 0 {
				fill(reflect.ValueOf(obj).Elem(), 0)
			}
			obj.GetObjectKind().SetGroupVersionKind(gvk)
			var b bytes.Buffer
			if err := s.Encode(obj, &b); err != nil {
				panic(err)
			}
			j, err := json.Marshal(obj)
			if err != nil {
				panic(err)
			}
			out = append(out, map[string]string{"protobuf": base64.StdEncoding.EncodeToString(b.Bytes()), "json": string(j)})
		}
	}
	json.NewEncoder(os.Stdout).Encode(out)
}
