package main

import (
	"github.com/spf13/pflag"

	"k8s.io/component-base/cli"
	"k8s.io/kubectl/pkg/cmd"
	"k8s.io/kubectl/pkg/cmd/util"
)

// runKubectl is kubectl, `kubectl kustomize` included; it ends the process itself when something is wrong.
func runKubectl() {
	forgetGlobalFlags("kubectl")
	util.CheckErr(cli.RunNoErrOutput(cmd.NewDefaultKubectlCommand()))
}

// forgetGlobalFlags takes away the flags of the other parts of this program.
//
// The packages of Kubernetes' servers put a --version of a type of their own on the global flag set, which cobra merges
// into every root command: kwok, which has a --version itself, then stops.
func forgetGlobalFlags(name string) {
	pflag.CommandLine = pflag.NewFlagSet(name, pflag.ContinueOnError)
}
