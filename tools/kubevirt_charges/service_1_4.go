//go:build v1_4

package main

import (
	"k8s.io/client-go/tools/cache"

	network "kubevirt.io/kubevirt/pkg/network/netbinding"
	virtconfig "kubevirt.io/kubevirt/pkg/virt-config"
	"kubevirt.io/kubevirt/pkg/virt-controller/services"
)

func newService(config *virtconfig.ClusterConfig, claims, quotas, namespaces cache.Store) renderer {
	return services.NewTemplateService(
		"launcher", 240, "/run/kubevirt", "/lib", "/ephemeral", "/disks", "/hotplug", "",
		claims, nil, config, 107, "exporter", quotas, namespaces,
		services.WithSidecarCreator(sidecars), services.WithNetBindingPluginMemoryCalculator(network.MemoryCalculator{}),
	)
}
