package main

import (
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/signal"
	"syscall"
	"time"

	"go.etcd.io/etcd/server/v3/embed"
)

const etcdStart = 60 * time.Second

// runEtcd serves a throw-away etcd of one member until a signal.
//
// It never calls fsync, since what it holds does not outlive the tests.
func runEtcd(args []string) error {
	if len(args) != 3 {
		return errors.New("usage: etcd DATA_DIR CLIENT_URL PEER_URL")
	}
	client, err := url.Parse(args[1])
	if err != nil {
		return err
	}
	peer, err := url.Parse(args[2])
	if err != nil {
		return err
	}
	server, err := embed.StartEtcd(etcdConfig(args[0], *client, *peer))
	if err != nil {
		return err
	}
	defer server.Close()
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGINT, syscall.SIGTERM)
	select {
	case <-server.Server.ReadyNotify():
	case <-time.After(etcdStart):
		return fmt.Errorf("not ready after %s", etcdStart)
	}
	select {
	case <-stop:
		return nil
	case err = <-server.Err():
		return err
	}
}

func etcdConfig(folder string, client, peer url.URL) *embed.Config {
	config := embed.NewConfig()
	config.Dir = folder
	config.LogLevel = "warn"
	config.UnsafeNoFsync = true
	config.ListenClientUrls = []url.URL{client}
	config.AdvertiseClientUrls = config.ListenClientUrls
	config.ListenPeerUrls = []url.URL{peer}
	config.AdvertisePeerUrls = config.ListenPeerUrls
	config.InitialCluster = config.InitialClusterFromName(config.Name)
	return config
}
