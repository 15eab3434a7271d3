// What KubeVirt's own renderer asks for a launcher Pod: reads named VirtualMachineInstances (JSON, an object of name → VMI) from
// standard input, defaults each as virt-api does and writes the resources of every container of its launcher Pod.
package main

import (
	"encoding/json"
	"os"

	k8sv1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"
	v1 "kubevirt.io/api/core/v1"

	"kubevirt.io/kubevirt/pkg/defaults"
	"kubevirt.io/kubevirt/pkg/hooks"
	"kubevirt.io/kubevirt/pkg/testutils"
)

type container struct {
	Name      string                        `json:"name"`
	Restart   *k8sv1.ContainerRestartPolicy `json:"restartPolicy,omitempty"`
	Resources k8sv1.ResourceRequirements    `json:"resources"`
}

type launcher struct {
	Containers     []container        `json:"containers"`
	InitContainers []container        `json:"initContainers,omitempty"`
	Automatic      k8sv1.ResourceList `json:"automaticLimits"`
}

type renderer interface {
	RenderLaunchManifest(*v1.VirtualMachineInstance) (*k8sv1.Pod, error)
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}

func brief(full []k8sv1.Container) (found []container) {
	for _, one := range full {
		found = append(found, container{one.Name, one.RestartPolicy, one.Resources})
	}
	return found
}

func store(objects ...interface{}) cache.Store {
	found := cache.NewIndexer(cache.DeletionHandlingMetaNamespaceKeyFunc, nil)
	for _, one := range objects {
		must(found.Add(one))
	}
	return found
}

func sidecars(vmi *v1.VirtualMachineInstance, _ *v1.KubeVirtConfiguration) (hooks.HookSidecarList, error) {
	return hooks.UnmarshalHookSidecarList(vmi)
}

func main() {
	cases := map[string]*v1.VirtualMachineInstance{}
	must(json.NewDecoder(os.Stdin).Decode(&cases))
	config, _, _ := testutils.NewFakeClusterConfigUsingKVWithCPUArch(&v1.KubeVirt{
		ObjectMeta: metav1.ObjectMeta{Name: "kubevirt", Namespace: "kubevirt"},
		Spec:       v1.KubeVirtSpec{Configuration: v1.KubeVirtConfiguration{DeveloperConfiguration: &v1.DeveloperConfiguration{}}},
	}, "amd64")
	namespace := &k8sv1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "limited"}}
	quota := &k8sv1.ResourceQuota{
		ObjectMeta: metav1.ObjectMeta{Name: "quota", Namespace: "limited"},
		Spec: k8sv1.ResourceQuotaSpec{Hard: k8sv1.ResourceList{
			"limits.cpu": resource.MustParse("100"), "limits.memory": resource.MustParse("100Gi"),
		}},
	}
	service := newService(config, store(), store(quota), store(namespace))
	found := map[string]launcher{}
	for name, vmi := range cases {
		must(defaults.SetDefaultVirtualMachineInstance(config, vmi))
		vmi.Name, vmi.Namespace, vmi.UID = name, "default", "1"
		pod, err := service.RenderLaunchManifest(vmi)
		must(err)
		vmi.Namespace = "limited"
		limited, err := service.RenderLaunchManifest(vmi)
		must(err)
		found[name] = launcher{brief(pod.Spec.Containers), brief(pod.Spec.InitContainers), limited.Spec.Containers[0].Resources.Limits}
	}
	out := json.NewEncoder(os.Stdout)
	must(out.Encode(found))
}
