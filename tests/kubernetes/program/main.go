// Command control-plane is a small, real Kubernetes control plane in one program, for tests. Its first argument chooses
// the part, what follows are the part's own arguments:
//
//	control-plane etcd DATA_DIR CLIENT_URL PEER_URL
//	control-plane kube-apiserver FLAGS...
//	control-plane kube-controller-manager FLAGS...
//	control-plane kube-scheduler FLAGS...
//	control-plane kwok FLAGS...
//	control-plane kubectl ARGUMENTS...
package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	_ "time/tzdata"

	"github.com/spf13/cobra"

	"k8s.io/component-base/cli"
	_ "k8s.io/component-base/logs/json/register"
	_ "k8s.io/component-base/metrics/prometheus/clientgo"
	_ "k8s.io/component-base/metrics/prometheus/version"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	controllermanager "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"
)

const usage = "usage: control-plane etcd|kube-apiserver|kube-controller-manager|kube-scheduler|kwok|kubectl ..."

func main() {
	if len(os.Args) < 2 {
		fail(2, errors.New(usage))
	}
	if os.Getenv("CONTROL_PLANE_FOLLOWS_STDIN") != "" {
		go endWithStdin()
	}
	part := os.Args[1]
	os.Args = append([]string{part}, os.Args[2:]...)
	switch part {
	case "etcd":
		fail(1, runEtcd(os.Args[1:]))
	case "kwok":
		fail(1, runKwok())
	case "kubectl":
		runKubectl()
	case "kube-apiserver":
		run(apiserver.NewAPIServerCommand())
	case "kube-controller-manager":
		run(controllermanager.NewControllerManagerCommand())
	case "kube-scheduler":
		run(scheduler.NewSchedulerCommand())
	default:
		fail(2, fmt.Errorf("no part %q; %s", part, usage))
	}
}

func run(command *cobra.Command) {
	os.Exit(cli.Run(command))
}

func fail(code int, err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "control-plane:", err)
		os.Exit(code)
	}
}

// endWithStdin ends the process when the tests, which hold the other end of its standard input, are gone.
func endWithStdin() {
	_, _ = io.Copy(io.Discard, os.Stdin)
	os.Exit(0)
}
