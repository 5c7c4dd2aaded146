// Command fake-gpus is a device plug-in for GPUs that aren't there: the kubelet counts,
// allocates and frees them as it does with the vendor's plug-in, so scheduling is real.
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	api "k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"
)

const (
	resource   = "nvidia.com/gpu"
	socketName = "fake-gpus.sock"
)

type plugin struct {
	api.UnimplementedDevicePluginServer
	count int
}

func (p plugin) GetDevicePluginOptions(
	context.Context, *api.Empty,
) (*api.DevicePluginOptions, error) {
	return &api.DevicePluginOptions{}, nil
}

func (p plugin) ListAndWatch(
	_ *api.Empty, stream grpc.ServerStreamingServer[api.ListAndWatchResponse],
) error {
	var devices []*api.Device
	for index := range p.count {
		devices = append(devices, &api.Device{
			ID: fmt.Sprintf("FAKE-GPU-%d", index), Health: api.Healthy,
		})
	}
	if err := stream.Send(&api.ListAndWatchResponse{Devices: devices}); err != nil {
		return err
	}
	<-stream.Context().Done()
	return nil
}

// Allocate names the devices the way the vendor's plug-in does. No device node is mounted.
func (p plugin) Allocate(
	_ context.Context, request *api.AllocateRequest,
) (*api.AllocateResponse, error) {
	response := &api.AllocateResponse{}
	for _, container := range request.ContainerRequests {
		visible := strings.Join(container.DevicesIds, ",")
		response.ContainerResponses = append(response.ContainerResponses,
			&api.ContainerAllocateResponse{Envs: map[string]string{"FAKE_GPUS": visible}})
	}
	return response, nil
}

func register(folder string) error {
	connection, err := grpc.NewClient(
		"unix://"+filepath.Join(folder, "kubelet.sock"),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
	)
	if err != nil {
		return err
	}
	defer connection.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	_, err = api.NewRegistrationClient(connection).Register(ctx, &api.RegisterRequest{
		Version: api.Version, Endpoint: socketName, ResourceName: resource,
	})
	return err
}

func main() {
	count := flag.Int("count", 2, "number of GPUs to advertise")
	folder := flag.String("folder", api.DevicePluginPath, "the kubelet's device plug-in folder")
	flag.Parse()

	socket := filepath.Join(*folder, socketName)
	if err := os.Remove(socket); err != nil && !os.IsNotExist(err) {
		log.Fatalf("remove the last run's socket: %v", err)
	}
	listener, err := net.Listen("unix", socket)
	if err != nil {
		log.Fatalf("listen on %s: %v", socket, err)
	}
	server := grpc.NewServer()
	api.RegisterDevicePluginServer(server, plugin{count: *count})
	go func() { log.Fatal(server.Serve(listener)) }()
	if err := register(*folder); err != nil {
		log.Fatalf("register with the kubelet: %v", err)
	}
	log.Printf("advertising %d %s", *count, resource)

	// A restarted kubelet empties its plug-in folder: end then, and be started anew.
	for range time.Tick(time.Second) {
		if _, err := os.Lstat(socket); os.IsNotExist(err) {
			log.Print("the kubelet was restarted: registering again after a restart")
			return
		}
	}
}
