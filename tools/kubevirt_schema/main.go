// Reads Go type declarations (the files named as arguments) and prints JSON schemas of VirtualMachine and
// VirtualMachineInstance with everything they refer to, one definition per type, as the OpenAPI v3 components that tools/generate_schemas.py packs.
//
// It needs the standard library only: fields, their JSON names, comments and the few markers that matter here
// (+optional, +listType, +listMapKey, +kubebuilder:validation:Enum, MaxItems, MaxLength) are in the syntax tree.
package main

import (
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"reflect"
	"strconv"
	"strings"
)

type schema = map[string]any

// Prefix of the definitions' names, as KubeVirt's own OpenAPI document names them.
const prefix = "io.kubevirt.v1."

var (
	structs = map[string]*ast.StructType{}
	aliases = map[string]ast.Expr{}
	docs    = map[string]string{}
	enums   = map[string][]string{}
)

// Packages by the names under which KubeVirt imports them.
var packages = map[string]string{
	"v1": "io.k8s.api.core.v1.", "k8sv1": "io.k8s.api.core.v1.",
	"metav1": "io.k8s.apimachinery.pkg.apis.meta.v1.",
}

func comment(group *ast.CommentGroup) (text string, markers []string) {
	if group == nil {
		return "", nil
	}
	var lines []string
	for _, line := range strings.Split(group.Text(), "\n") {
		trimmed := strings.TrimSpace(line)
		if strings.HasPrefix(trimmed, "+") {
			markers = append(markers, trimmed)
		} else if trimmed != "" {
			lines = append(lines, trimmed)
		}
	}
	return strings.Join(lines, " "), markers
}

func basic(name string) schema {
	switch name {
	case "string":
		return schema{"type": "string"}
	case "bool":
		return schema{"type": "boolean"}
	case "int", "int64", "uint", "uint64":
		return schema{"type": "integer", "format": "int64"}
	case "int32":
		return schema{"type": "integer", "format": "int32"}
	case "uint32", "uint16", "uint8", "byte":
		return schema{"type": "integer", "format": "int64", "minimum": 0}
	case "float32", "float64":
		return schema{"type": "number"}
	}
	return nil
}

func typeOf(expr ast.Expr) schema {
	switch t := expr.(type) {
	case *ast.StarExpr:
		return typeOf(t.X)
	case *ast.ArrayType:
		if name, ok := t.Elt.(*ast.Ident); ok && name.Name == "byte" {
			return schema{"type": "string", "format": "byte"}
		}
		return schema{"type": "array", "items": typeOf(t.Elt)}
	case *ast.MapType:
		return schema{"type": "object", "additionalProperties": typeOf(t.Value)}
	case *ast.InterfaceType:
		return schema{"x-kubernetes-preserve-unknown-fields": true}
	case *ast.SelectorExpr:
		return external(fmt.Sprint(t.X), t.Sel.Name)
	case *ast.Ident:
		if result := basic(t.Name); result != nil {
			return result
		}
		if _, ok := structs[t.Name]; ok {
			return schema{"$ref": "#/components/schemas/" + prefix + t.Name}
		}
		if underlying, ok := aliases[t.Name]; ok {
			result := typeOf(underlying)
			if values := enums[t.Name]; values != nil {
				result["enum"] = values
			}
			return result
		}
		panic("unknown type " + t.Name)
	case *ast.StructType:
		return schema{"type": "object"}
	}
	panic(fmt.Sprintf("unknown expression %T", expr))
}

func external(pkg, name string) schema {
	switch pkg + "." + name {
	case "types.UID", "types.NodeName":
		return schema{"type": "string"}
	case "resource.Quantity":
		return schema{"$ref": "#/components/schemas/io.k8s.apimachinery.pkg.api.resource.Quantity"}
	case "intstr.IntOrString":
		return schema{"$ref": "#/components/schemas/io.k8s.apimachinery.pkg.util.intstr.IntOrString"}
	case "json.RawMessage":
		return schema{"x-kubernetes-preserve-unknown-fields": true}
	case "runtime.RawExtension":
		return schema{"type": "object", "x-kubernetes-preserve-unknown-fields": true}
	case "metav1.Duration", "metav1.LabelSelectorOperator":
		return schema{"type": "string"}
	}
	if base, ok := packages[pkg]; ok {
		if base == "io.k8s.api.core.v1." {
			switch name { // Named strings and maps have no definition of their own upstream.
			case "ResourceList":
				return schema{"type": "object", "additionalProperties": external("resource", "Quantity")}
			case "PersistentVolumeAccessMode", "PersistentVolumeMode", "ConditionStatus", "DNSPolicy", "PullPolicy",
				"Protocol", "PodQOSClass", "ResourceName", "IPFamily", "NodeSelectorOperator", "TolerationOperator":
				return schema{"type": "string"}
			}
		}
		return schema{"$ref": "#/components/schemas/" + base + name}
	}
	// Snapshot and backup groups are not served: their parts of the status stay free-form objects.
	return schema{"type": "object", "x-kubernetes-preserve-unknown-fields": true}
}

func annotate(property schema, markers []string) {
	var keys []string
	for _, marker := range markers {
		name, value, _ := strings.Cut(strings.TrimPrefix(marker, "+"), "=")
		if rest, ok := strings.CutPrefix(name, "kubebuilder:validation:"); ok && value == "" {
			name, value, _ = strings.Cut("kubebuilder:validation:"+rest, "=")
			if at := strings.LastIndex(rest, ":="); at >= 0 {
				name, value = "kubebuilder:validation:"+rest[:at], rest[at+2:]
			}
		}
		name = strings.TrimSuffix(name, ":")
		switch name {
		case "listType":
			property["x-kubernetes-list-type"] = value
		case "listMapKey":
			keys = append(keys, value)
		case "kubebuilder:validation:MaxItems", "kubebuilder:validation:MaxLength":
			if number, err := strconv.Atoi(value); err == nil {
				short := strings.TrimPrefix(name, "kubebuilder:validation:")
				property[strings.ToLower(short[:1])+short[1:]] = number
			}
		case "kubebuilder:validation:Enum":
			property["enum"] = strings.Split(value, ";")
		}
	}
	if keys != nil {
		property["x-kubernetes-list-map-keys"] = keys
	}
}

func fields(name string, into schema, required *[]string) {
	for _, field := range structs[name].Fields.List {
		tag := ""
		if field.Tag != nil {
			text, _ := strconv.Unquote(field.Tag.Value)
			tag = reflect.StructTag(text).Get("json")
		}
		jsonName, options, _ := strings.Cut(tag, ",")
		embedded := len(field.Names) == 0
		if jsonName == "-" || (!embedded && !field.Names[0].IsExported()) {
			continue
		}
		if embedded && jsonName == "" {
			switch t := field.Type.(type) {
			case *ast.Ident:
				fields(t.Name, into, required)
			case *ast.SelectorExpr:
				switch fmt.Sprint(t.X) + "." + t.Sel.Name {
				case "metav1.TypeMeta":
					into["apiVersion"] = schema{"type": "string"}
					into["kind"] = schema{"type": "string"}
				case "v1.LocalObjectReference", "k8sv1.LocalObjectReference":
					into["name"] = schema{"type": "string"}
				case "v1.PersistentVolumeClaimVolumeSource", "k8sv1.PersistentVolumeClaimVolumeSource":
					into["claimName"] = schema{"type": "string"}
					into["readOnly"] = schema{"type": "boolean"}
				default:
					panic("cannot inline " + t.Sel.Name)
				}
			}
			continue
		}
		if jsonName == "" {
			jsonName = field.Names[0].Name
		}
		text, markers := comment(field.Doc)
		property := typeOf(field.Type)
		annotate(property, markers)
		if text != "" {
			property["description"] = text
		}
		into[jsonName] = property
		optional := strings.Contains(options, "omitempty") || strings.Contains(options, "omitzero")
		for _, marker := range markers {
			optional = optional || strings.HasPrefix(marker, "+optional")
		}
		if _, pointer := field.Type.(*ast.StarExpr); !optional && !pointer {
			*required = append(*required, jsonName)
		}
	}
}

// The types of ours that a value refers to.
func references(value any) (names []string) {
	switch v := value.(type) {
	case schema:
		for _, child := range v {
			names = append(names, references(child)...)
		}
	case string:
		if name, ok := strings.CutPrefix(v, "#/components/schemas/"+prefix); ok {
			names = append(names, name)
		}
	}
	return names
}

func main() {
	for _, path := range os.Args[1:] {
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ParseComments)
		if err != nil {
			panic(err)
		}
		for _, decl := range file.Decls {
			group, ok := decl.(*ast.GenDecl)
			if !ok || group.Tok != token.TYPE {
				continue
			}
			for _, spec := range group.Specs {
				t := spec.(*ast.TypeSpec)
				doc := group.Doc
				if t.Doc != nil {
					doc = t.Doc
				}
				text, markers := comment(doc)
				docs[t.Name.Name] = text
				for _, marker := range markers {
					if values, ok := strings.CutPrefix(marker, "+kubebuilder:validation:Enum="); ok {
						enums[t.Name.Name] = strings.Split(values, ";")
					}
				}
				if s, ok := t.Type.(*ast.StructType); ok {
					structs[t.Name.Name] = s
				} else {
					aliases[t.Name.Name] = t.Type
				}
			}
		}
	}
	result := schema{}
	pending := []string{"VirtualMachine", "VirtualMachineInstance"}
	for len(pending) > 0 {
		name := pending[0]
		pending = pending[1:]
		if _, done := result[prefix+name]; done {
			continue
		}
		properties, required := schema{}, []string{}
		fields(name, properties, &required)
		definition := schema{"type": "object", "properties": properties}
		if docs[name] != "" {
			definition["description"] = docs[name]
		}
		if len(required) > 0 {
			definition["required"] = required
		}
		result[prefix+name] = definition
		pending = append(pending, references(properties)...)
	}
	encoder := json.NewEncoder(os.Stdout)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(result); err != nil {
		panic(err)
	}
}
