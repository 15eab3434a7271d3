// Package core stands in for an API that the renderer never uses: its module is not published.
package core

const (
	GroupName            = "template.kubevirt.io"
	PluralResourceName   = "virtualmachinetemplates"
	SingularResourceName = "virtualmachinetemplate"
)
