// Command shared-provisioner serves a StorageClass whose claims are folders of one
// directory that every node sees, so that ReadWriteMany means what it says.
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"os"
	"path/filepath"

	core "k8s.io/api/core/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"
	"sigs.k8s.io/sig-storage-lib-external-provisioner/v10/controller"
)

const provisionerName = "dreambooth.dev/shared"

type folders struct{ root string }

func (f folders) Provision(
	_ context.Context, options controller.ProvisionOptions,
) (*core.PersistentVolume, controller.ProvisioningState, error) {
	claim := options.PVC
	name := fmt.Sprintf("%s_%s_%s", claim.Namespace, claim.Name, options.PVName)
	path := filepath.Join(f.root, name)
	if err := os.MkdirAll(path, 0o777); err != nil {
		return nil, controller.ProvisioningFinished, fmt.Errorf("make %s: %w", path, err)
	}
	// Like an NFS export for many users: pods run as any uid, and hostPath ignores fsGroup.
	if err := os.Chmod(path, 0o777); err != nil {
		return nil, controller.ProvisioningFinished, fmt.Errorf("open %s: %w", path, err)
	}
	kind := core.HostPathDirectory
	return &core.PersistentVolume{
		ObjectMeta: meta.ObjectMeta{Name: options.PVName},
		Spec: core.PersistentVolumeSpec{
			PersistentVolumeReclaimPolicy: *options.StorageClass.ReclaimPolicy,
			AccessModes:                   claim.Spec.AccessModes,
			Capacity: core.ResourceList{
				core.ResourceStorage: claim.Spec.Resources.Requests[core.ResourceStorage],
			},
			PersistentVolumeSource: core.PersistentVolumeSource{
				HostPath: &core.HostPathVolumeSource{Path: path, Type: &kind},
			},
		},
	}, controller.ProvisioningFinished, nil
}

func (f folders) Delete(_ context.Context, volume *core.PersistentVolume) error {
	path := filepath.Clean(volume.Spec.HostPath.Path)
	if filepath.Dir(path) != filepath.Clean(f.root) {
		return fmt.Errorf("volume %s is not a folder of %s", volume.Name, f.root)
	}
	return os.RemoveAll(path)
}

func main() {
	root := flag.String("root", "", "directory that every node sees; each claim is a folder in it")
	flag.Parse()
	if *root == "" {
		log.Fatal("-root is required")
	}
	config, err := rest.InClusterConfig()
	if err != nil {
		log.Fatalf("read the pod's own credentials: %v", err)
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		log.Fatalf("make an API client: %v", err)
	}
	provisioner := controller.NewProvisionController(
		klog.Background(), client, provisionerName, folders{root: *root},
		controller.LeaderElection(false),
	)
	provisioner.Run(context.Background())
}
