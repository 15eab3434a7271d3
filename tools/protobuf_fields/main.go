// Prints the table from which src/isoplane/objects/protobuf.py decodes Kubernetes protobuf bodies:
//
//	go mod download k8s.io/api@v0.37.2 k8s.io/apimachinery@v0.37.2
//	M=$(go env GOMODCACHE)/k8s.io; go build -o /tmp/fields tools/protobuf_fields/main.go
//	/tmp/fields $M/api@v0.37.2 $M/apimachinery@v0.37.2 > src/isoplane/objects/protobuf_fields.json
//
// The published .proto files are generated from the Go types, whose struct tags carry the same field numbers and, more
// than the .proto files, the JSON name, whether the field is a pointer (an absent value differs from zero) and whether
// JSON omits it when empty. So the tags are read, by the standard library's parser.
//
// Each message maps a field number to [JSON name, type, flags]. A type is a scalar (string, bool, int, double, bytes), a
// special form (time, quantity, …), or the name of another message; "[]" before it makes a list, "{}" a map from
// strings, "[w]" a list wrapped in a message of its own. Flags: p pointer, o omitted when empty. An empty JSON name
// inlines the message. The first key lists the kinds that may come as a request's body.
package main

import (
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
)

// The packages that are read: the prefix of their messages' names, and their folder.
type source struct{ name, dir string }

var (
	structs = map[string]*ast.StructType{}
	aliases = map[string]ast.Expr{}
	imports = map[string]map[string]string{} // package → import name → package
	paths   = map[string]string{}            // import path → package
)

// Forms that do not follow from a struct's tags.
var special = map[string]string{
	"meta.v1.Time": "time", "meta.v1.MicroTime": "microtime",
	"meta.v1.FieldsV1": "json", "resource.Quantity": "quantity", "intstr.IntOrString": "intorstring",
	"runtime.RawExtension": "json", "types.UID": "string", "types.NodeName": "string",
}

// Kinds that a client may send: apiVersion, kind, message.
var kinds = [][3]string{
	{"v1", "Namespace", "core.v1.Namespace"}, {"v1", "Pod", "core.v1.Pod"}, {"v1", "Node", "core.v1.Node"},
	{"v1", "Event", "core.v1.Event"}, {"v1", "ConfigMap", "core.v1.ConfigMap"}, {"v1", "Secret", "core.v1.Secret"},
	{"v1", "ServiceAccount", "core.v1.ServiceAccount"}, {"v1", "ResourceQuota", "core.v1.ResourceQuota"},
	{"v1", "LimitRange", "core.v1.LimitRange"}, {"v1", "Binding", "core.v1.Binding"},
	{"scheduling.k8s.io/v1", "PriorityClass", "scheduling.v1.PriorityClass"},
	{"networking.k8s.io/v1", "NetworkPolicy", "networking.v1.NetworkPolicy"},
	{"policy/v1", "PodDisruptionBudget", "policy.v1.PodDisruptionBudget"}, {"policy/v1", "Eviction", "policy.v1.Eviction"},
	{"coordination.k8s.io/v1", "Lease", "coordination.v1.Lease"},
	{"authentication.k8s.io/v1", "TokenRequest", "authentication.v1.TokenRequest"},
	{"authentication.k8s.io/v1", "TokenReview", "authentication.v1.TokenReview"},
	{"authentication.k8s.io/v1", "SelfSubjectReview", "authentication.v1.SelfSubjectReview"},
	{"authorization.k8s.io/v1", "SubjectAccessReview", "authorization.v1.SubjectAccessReview"},
	{"authorization.k8s.io/v1", "LocalSubjectAccessReview", "authorization.v1.LocalSubjectAccessReview"},
	{"authorization.k8s.io/v1", "SelfSubjectAccessReview", "authorization.v1.SelfSubjectAccessReview"},
	{"authorization.k8s.io/v1", "SelfSubjectRulesReview", "authorization.v1.SelfSubjectRulesReview"},
	{"rbac.authorization.k8s.io/v1", "Role", "rbac.v1.Role"},
	{"rbac.authorization.k8s.io/v1", "RoleBinding", "rbac.v1.RoleBinding"},
	{"rbac.authorization.k8s.io/v1", "ClusterRole", "rbac.v1.ClusterRole"},
	{"rbac.authorization.k8s.io/v1", "ClusterRoleBinding", "rbac.v1.ClusterRoleBinding"},
	{"*", "DeleteOptions", "meta.v1.DeleteOptions"}, {"*", "CreateOptions", "meta.v1.CreateOptions"},
	{"*", "UpdateOptions", "meta.v1.UpdateOptions"}, {"*", "PatchOptions", "meta.v1.PatchOptions"},
	{"*", "Status", "meta.v1.Status"},
}

func read(s source) {
	imports[s.name] = map[string]string{}
	notTest := func(info fs.FileInfo) bool { return !strings.HasSuffix(info.Name(), "_test.go") }
	packages, err := parser.ParseDir(token.NewFileSet(), s.dir, notTest, 0)
	if err != nil {
		panic(err)
	}
	for _, pkg := range packages {
		for _, file := range pkg.Files {
			for _, i := range file.Imports {
				path, _ := strconv.Unquote(i.Path.Value)
				name := filepath.Base(path)
				if i.Name != nil {
					name = i.Name.Name
				}
				if known := paths[path]; known != "" {
					imports[s.name][name] = known
				}
			}
			for _, decl := range file.Decls {
				group, ok := decl.(*ast.GenDecl)
				if !ok || group.Tok != token.TYPE {
					continue
				}
				for _, spec := range group.Specs {
					t := spec.(*ast.TypeSpec)
					if st, ok := t.Type.(*ast.StructType); ok {
						structs[s.name+"."+t.Name.Name] = st
					} else {
						aliases[s.name+"."+t.Name.Name] = t.Type
					}
				}
			}
		}
	}
}

// The table's name of a type, as seen in a package.
func typeOf(pkg string, expr ast.Expr) string {
	switch t := expr.(type) {
	case *ast.StarExpr:
		return typeOf(pkg, t.X)
	case *ast.ArrayType:
		if name, ok := t.Elt.(*ast.Ident); ok && name.Name == "byte" {
			return "bytes"
		}
		return "[]" + typeOf(pkg, t.Elt)
	case *ast.MapType:
		return "{}" + typeOf(pkg, t.Value)
	case *ast.SelectorExpr:
		other, ok := imports[pkg][fmt.Sprint(t.X)]
		if !ok {
			panic(fmt.Sprintf("%s: unknown package of %s.%s", pkg, t.X, t.Sel.Name))
		}
		return named(other, t.Sel.Name)
	case *ast.Ident:
		switch t.Name {
		case "string", "bool":
			return t.Name
		case "int", "int32", "int64", "uint32", "uint64":
			return "int"
		case "float64":
			return "double"
		}
		return named(pkg, t.Name)
	}
	panic(fmt.Sprintf("unknown expression %T", expr))
}

func named(pkg, name string) string {
	full := pkg + "." + name
	if form, ok := special[full]; ok {
		return form
	}
	if _, ok := structs[full]; ok {
		return full
	}
	underlying, ok := aliases[full]
	if !ok {
		panic("unknown type " + full)
	}
	form := typeOf(pkg, underlying)
	if strings.HasPrefix(form, "[]") { // A named list is a message of its own on the wire.
		return "[w]" + form[2:]
	}
	return form
}

func main() {
	api, machinery := os.Args[1], os.Args[2]
	sources := []source{
		{"resource", machinery + "/pkg/api/resource"}, {"intstr", machinery + "/pkg/util/intstr"},
		{"runtime", machinery + "/pkg/runtime"}, {"types", machinery + "/pkg/types"},
		{"meta.v1", machinery + "/pkg/apis/meta/v1"}, {"core.v1", api + "/core/v1"},
		{"scheduling.v1", api + "/scheduling/v1"}, {"networking.v1", api + "/networking/v1"},
		{"policy.v1", api + "/policy/v1"}, {"coordination.v1", api + "/coordination/v1"},
		{"authentication.v1", api + "/authentication/v1"}, {"authorization.v1", api + "/authorization/v1"},
		{"rbac.v1", api + "/rbac/v1"},
	}
	for _, s := range sources {
		root, module := machinery, "k8s.io/apimachinery"
		if strings.HasPrefix(s.dir, api+"/") {
			root, module = api, "k8s.io/api"
		}
		paths[module+strings.TrimPrefix(s.dir, root)] = s.name
	}
	for _, s := range sources {
		read(s)
	}
	messages, bodies, pending := map[string]map[string][3]string{}, map[string]string{}, []string{}
	for _, kind := range kinds {
		bodies[kind[0]+" "+kind[1]] = kind[2]
		pending = append(pending, kind[2])
	}
	for len(pending) > 0 {
		name := pending[0]
		pending = pending[1:]
		if _, done := messages[name]; done {
			continue
		}
		declared, ok := structs[name]
		if !ok {
			panic("no struct " + name)
		}
		fields := map[string][3]string{}
		messages[name] = fields
		pkg := name[:strings.LastIndex(name, ".")]
		for _, field := range declared.Fields.List {
			text := ""
			if field.Tag != nil {
				text, _ = strconv.Unquote(field.Tag.Value)
			}
			tag := reflect.StructTag(text)
			wire := strings.Split(tag.Get("protobuf"), ",")
			if len(wire) < 2 { // TypeMeta travels in the envelope.
				continue
			}
			jsonName, options, _ := strings.Cut(tag.Get("json"), ",")
			form, flags := typeOf(pkg, field.Type), ""
			if _, pointer := field.Type.(*ast.StarExpr); pointer {
				flags += "p"
			}
			if strings.Contains(options, "omitempty") || strings.Contains(options, "omitzero") {
				flags += "o"
			}
			fields[wire[1]] = [3]string{jsonName, form, flags}
			element := strings.TrimPrefix(strings.TrimPrefix(strings.TrimPrefix(form, "[]"), "{}"), "[w]")
			if _, isMessage := structs[element]; isMessage {
				pending = append(pending, element)
			}
		}
	}
	encoder := json.NewEncoder(os.Stdout)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(map[string]any{"kinds": bodies, "messages": messages, "source": filepath.Base(api)}); err != nil {
		panic(err)
	}
}
