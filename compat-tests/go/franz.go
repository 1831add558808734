package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

// franz-go speaks the newest request versions that the broker offers.
func init() {
	add("franz", "create, list and delete a topic", franzTopics)
	add("franz", "topic errors", franzTopicErrors)
	add("franz", "create partitions", franzPartitions)
	add("franz", "configs: describe, alter, reset", franzConfigs)
	for name, codec := range map[string]kgo.CompressionCodec{
		"none": kgo.NoCompression(), "gzip": kgo.GzipCompression(), "snappy": kgo.SnappyCompression(),
		"lz4": kgo.Lz4Compression(), "zstd": kgo.ZstdCompression(),
	} {
		add("franz", "produce and consume: "+name, func() error { return franzCodec(codec) })
	}
	add("franz", "idempotent producer, many in flight", franzIdempotent)
	add("franz", "acks 0 and 1", franzAcks)
	add("franz", "null keys and values, timestamps", franzShapes)
	add("franz", "offsets by timestamp", franzOffsets)
	add("franz", "delete records", franzDeleteRecords)
	add("franz", "group: commit and resume", franzCommit)
	for name, balancer := range map[string]kgo.GroupBalancer{
		"range": kgo.RangeBalancer(), "round robin": kgo.RoundRobinBalancer(), "sticky": kgo.StickyBalancer(),
		"cooperative sticky": kgo.CooperativeStickyBalancer(),
	} {
		add("franz", "group: two members, "+name, func() error { return franzRebalance(balancer) })
	}
	add("franz", "group: static member", franzStatic)
	add("franz", "group: list, describe, lag, delete", franzGroupAdmin)
	add("franz", "automatic topic creation", franzAutoCreate)
	add("franz", "produce: too large", franzTooLarge)
	add("franz", "log dirs and cluster metadata", franzCluster)
}

func within(seconds int) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), time.Duration(seconds)*time.Second)
	context.AfterFunc(ctx, cancel)
	return ctx
}

func franz(options ...kgo.Opt) *kgo.Client {
	options = append([]kgo.Opt{kgo.SeedBrokers(bootstrap), kgo.RecordPartitioner(kgo.ManualPartitioner())}, options...)
	client, err := kgo.NewClient(options...)
	if err != nil {
		panic(err)
	}
	return client
}

func franzAdmin() *kadm.Client { return kadm.NewClient(franz()) }

func franzTopic(partitions int32, configs map[string]*string) (string, error) {
	name := unique("franz")
	admin := franzAdmin()
	defer admin.Close()
	if _, err := admin.CreateTopic(within(10), partitions, int16(replication), configs, name); err != nil {
		return "", err
	}
	return name, everywhere(name, int(partitions))
}

func franzSend(topic string, n int, partitions int32, options ...kgo.Opt) error {
	client := franz(options...)
	defer client.Close()
	records := make([]*kgo.Record, n)
	for i := range records {
		records[i] = &kgo.Record{Topic: topic, Partition: int32(i) % partitions, Value: fmt.Appendf(nil, "%d", i)}
	}
	return client.ProduceSync(within(20), records...).FirstErr()
}

// franzRead polls until it has n records.
func franzRead(client *kgo.Client, n int) ([]*kgo.Record, error) {
	var records []*kgo.Record
	ctx := within(20)
	for len(records) < n {
		fetches := client.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			return nil, fmt.Errorf("after %d of %d records: %w", len(records), n, err)
		}
		records = append(records, fetches.Records()...)
	}
	return records, nil
}

func fromStart(topic string) []kgo.Opt {
	return []kgo.Opt{kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchMaxWait(200 * time.Millisecond)}
}

func franzTopics() error {
	name, err := franzTopic(3, nil)
	if err != nil {
		return err
	}
	admin := franzAdmin()
	defer admin.Close()
	listed, err := admin.ListTopics(within(10), name)
	if err != nil {
		return err
	}
	if err := equal("partitions", len(listed[name].Partitions), 3); err != nil {
		return err
	}
	if _, err := admin.DeleteTopic(within(10), name); err != nil {
		return err
	}
	return eventually("topic gone", 10, func() bool {
		listed, err := admin.ListTopics(within(10), name)
		return err == nil && errors.Is(listed[name].Err, kerr.UnknownTopicOrPartition)
	})
}

func franzTopicErrors() error {
	name, err := franzTopic(1, nil)
	if err != nil {
		return err
	}
	admin := franzAdmin()
	defer admin.Close()
	bad := "x"
	_, twice := admin.CreateTopic(within(10), 1, 1, nil, name)
	_, factor := admin.CreateTopic(within(10), 1, 9, nil, unique("rf"))
	_, invalid := admin.CreateTopic(within(10), 1, 1, nil, "a b")
	_, config := admin.CreateTopic(within(10), 1, 1, map[string]*string{"nonsense": &bad}, unique("c"))
	_, partitions := admin.CreateTopic(within(10), 0, 1, nil, unique("p"))
	_, unknown := admin.DeleteTopic(within(10), unique("none"))
	return errors.Join(refused(kerr.TopicAlreadyExists, twice), refused(kerr.InvalidReplicationFactor, factor),
		refused(kerr.InvalidTopicException, invalid), refused(kerr.InvalidConfig, config),
		refused(kerr.InvalidPartitions, partitions), refused(kerr.UnknownTopicOrPartition, unknown))
}

func franzPartitions() error {
	name, err := franzTopic(1, nil)
	if err != nil {
		return err
	}
	admin := franzAdmin()
	defer admin.Close()
	answers, err := admin.UpdatePartitions(within(10), 4, name)
	if err == nil {
		err = answers.Error()
	}
	if err != nil {
		return err
	}
	answers, err = admin.UpdatePartitions(within(10), 2, name)
	if err != nil {
		return err
	}
	return refused(kerr.InvalidPartitions, answers.Error())
}

func franzConfigs() error {
	value := "123456"
	name, err := franzTopic(1, map[string]*string{"retention.ms": &value})
	if err != nil {
		return err
	}
	admin := franzAdmin()
	defer admin.Close()
	read := func() string {
		configs, err := admin.DescribeTopicConfigs(within(10), name)
		if err != nil {
			return err.Error()
		}
		for _, config := range configs[0].Configs {
			if config.Key == "retention.ms" {
				return config.MaybeValue()
			}
		}
		return "none"
	}
	if err := eventually("value "+value, 5, func() bool { return read() == value }); err != nil {
		return err
	}
	other := "654321"
	for _, step := range []struct {
		config kadm.AlterConfig
		want   string
	}{
		{kadm.AlterConfig{Op: kadm.SetConfig, Name: "retention.ms", Value: &other}, other},
		{kadm.AlterConfig{Op: kadm.DeleteConfig, Name: "retention.ms"}, "604800000"},
	} {
		if _, err := admin.AlterTopicConfigs(within(10), []kadm.AlterConfig{step.config}, name); err != nil {
			return err
		}
		if err := eventually("value "+step.want, 10, func() bool { return read() == step.want }); err != nil {
			return err
		}
	}
	return nil
}

func franzCodec(codec kgo.CompressionCodec) error {
	topic, err := franzTopic(1, nil)
	if err != nil {
		return err
	}
	client := franz(append(fromStart(topic), kgo.ProducerBatchCompression(codec))...)
	defer client.Close()
	sent := make([]*kgo.Record, 500)
	for i := range sent {
		sent[i] = &kgo.Record{
			Topic: topic, Key: fmt.Appendf(nil, "k%d", i), Value: fmt.Appendf(nil, "%0200d", i),
			Headers: []kgo.RecordHeader{{Key: "h", Value: fmt.Appendf(nil, "%d", i)}, {Key: "none"}},
		}
	}
	if err := client.ProduceSync(within(20), sent...).FirstErr(); err != nil {
		return err
	}
	got, err := franzRead(client, len(sent))
	if err != nil {
		return err
	}
	for i, r := range got {
		if string(r.Key) != string(sent[i].Key) || string(r.Value) != string(sent[i].Value) || r.Offset != int64(i) ||
			len(r.Headers) != 2 || string(r.Headers[0].Value) != fmt.Sprint(i) || r.Headers[1].Value != nil {
			return fmt.Errorf("record %d is %v", i, r)
		}
	}
	return nil
}

func franzIdempotent() error {
	topic, err := franzTopic(2, nil)
	if err != nil {
		return err
	}
	client := franz(append(fromStart(topic), kgo.ProducerBatchMaxBytes(2000))...)
	defer client.Close()
	var wait sync.WaitGroup
	var mutex sync.Mutex
	var failed error
	for i := range 5000 {
		wait.Add(1)
		client.Produce(within(30), &kgo.Record{Topic: topic, Partition: int32(i % 2), Value: fmt.Appendf(nil, "%d", i)},
			func(_ *kgo.Record, err error) {
				mutex.Lock()
				failed = errors.Join(failed, err)
				mutex.Unlock()
				wait.Done()
			})
	}
	wait.Wait()
	if failed != nil {
		return failed
	}
	got, err := franzRead(client, 5000)
	if err != nil {
		return err
	}
	for _, r := range got {
		if string(r.Value) != fmt.Sprint(r.Offset*2+int64(r.Partition)) {
			return fmt.Errorf("%d/%d holds %s", r.Partition, r.Offset, r.Value)
		}
	}
	return nil
}

func franzAcks() error {
	topic, err := franzTopic(1, nil)
	if err != nil {
		return err
	}
	if err := franzSend(topic, 5, 1, kgo.RequiredAcks(kgo.LeaderAck()), kgo.DisableIdempotentWrite()); err != nil {
		return err
	}
	if err := franzSend(topic, 5, 1, kgo.RequiredAcks(kgo.NoAck()), kgo.DisableIdempotentWrite()); err != nil {
		return err
	}
	client := franz(fromStart(topic)...)
	defer client.Close()
	_, err = franzRead(client, 10)
	return err
}

func franzShapes() error {
	topic, err := franzTopic(1, nil)
	if err != nil {
		return err
	}
	client := franz(fromStart(topic)...)
	defer client.Close()
	stamp := time.UnixMilli(time.Now().UnixMilli() - 60000)
	err = client.ProduceSync(within(10), &kgo.Record{Topic: topic, Timestamp: stamp},
		&kgo.Record{Topic: topic, Key: []byte{}, Value: []byte{}, Timestamp: stamp.Add(time.Second)}).FirstErr()
	if err != nil {
		return err
	}
	got, err := franzRead(client, 2)
	if err != nil {
		return err
	}
	return errors.Join(equal("null", got[0].Key == nil && got[0].Value == nil, true),
		equal("empty", got[1].Key != nil && got[1].Value != nil && len(got[1].Value) == 0, true),
		equal("timestamps", []int64{got[0].Timestamp.UnixMilli(), got[1].Timestamp.UnixMilli()},
			[]int64{stamp.UnixMilli(), stamp.UnixMilli() + 1000}))
}

func franzOffsets() error {
	topic, err := franzTopic(1, nil)
	if err != nil {
		return err
	}
	client := franz()
	admin := kadm.NewClient(client)
	defer client.Close()
	base := time.Now().UnixMilli() - 100000
	for i := range int64(10) {
		r := &kgo.Record{Topic: topic, Value: []byte("x"), Timestamp: time.UnixMilli(base + i*1000)}
		if err := client.ProduceSync(within(10), r).FirstErr(); err != nil {
			return err
		}
	}
	at := func(listed kadm.ListedOffsets, err error) int64 {
		if err != nil {
			return -99
		}
		found, _ := listed.Lookup(topic, 0)
		return found.Offset
	}
	return errors.Join(
		equal("by time", at(admin.ListOffsetsAfterMilli(within(10), base+4500, topic)), int64(5)),
		equal("start", at(admin.ListStartOffsets(within(10), topic)), int64(0)),
		equal("end", at(admin.ListEndOffsets(within(10), topic)), int64(10)),
		equal("committed end", at(admin.ListCommittedOffsets(within(10), topic)), int64(10)),
		equal("max timestamp", at(admin.ListMaxTimestampOffsets(within(10), topic)), int64(9)))
}

func franzDeleteRecords() error {
	topic, err := franzTopic(1, nil)
	if err != nil {
		return err
	}
	if err := franzSend(topic, 10, 1); err != nil {
		return err
	}
	admin := franzAdmin()
	defer admin.Close()
	var upTo kadm.Offsets
	upTo.Add(kadm.Offset{Topic: topic, Partition: 0, At: 6})
	if _, err := admin.DeleteRecords(within(10), upTo); err != nil {
		return err
	}
	client := franz(fromStart(topic)...)
	defer client.Close()
	got, err := franzRead(client, 4)
	if err != nil {
		return err
	}
	return equal("first offset", got[0].Offset, int64(6))
}

func member(topic, group string, options ...kgo.Opt) *kgo.Client {
	return franz(append(append(fromStart(topic), kgo.ConsumerGroup(group), kgo.SessionTimeout(6*time.Second),
		kgo.HeartbeatInterval(300*time.Millisecond), kgo.DisableAutoCommit()), options...)...)
}

func franzCommit() error {
	topic, err := franzTopic(1, nil)
	if err != nil {
		return err
	}
	if err := franzSend(topic, 10, 1); err != nil {
		return err
	}
	group := unique("g")
	first := member(topic, group)
	got, err := franzRead(first, 10)
	if err != nil {
		return err
	}
	if err := first.CommitRecords(within(10), got[3]); err != nil {
		return err
	}
	first.Close()
	second := member(topic, group)
	defer second.Close()
	got, err = franzRead(second, 6)
	if err != nil {
		return err
	}
	return equal("resumes at", got[0].Offset, int64(4))
}

func franzRebalance(balancer kgo.GroupBalancer) error {
	topic, err := franzTopic(4, nil)
	if err != nil {
		return err
	}
	group := unique("g")
	var mutex sync.Mutex
	var seen []string
	share := [2]int{}
	ctx, stop := context.WithCancel(context.Background())
	var workers sync.WaitGroup
	for i := range 2 {
		client := member(topic, group, kgo.Balancers(balancer),
			kgo.OnPartitionsAssigned(func(_ context.Context, _ *kgo.Client, parts map[string][]int32) {
				mutex.Lock()
				share[i] += len(parts[topic])
				mutex.Unlock()
			}),
			kgo.OnPartitionsRevoked(func(_ context.Context, _ *kgo.Client, parts map[string][]int32) {
				mutex.Lock()
				share[i] -= len(parts[topic])
				mutex.Unlock()
			}))
		workers.Add(1)
		go func() {
			defer workers.Done()
			defer client.Close()
			for ctx.Err() == nil {
				fetches := client.PollFetches(ctx)
				mutex.Lock()
				fetches.EachRecord(func(r *kgo.Record) { seen = append(seen, fmt.Sprintf("%d/%d", r.Partition, r.Offset)) })
				mutex.Unlock()
			}
		}()
	}
	err = eventually("two partitions each", 20, func() bool {
		mutex.Lock()
		defer mutex.Unlock()
		return share == [2]int{2, 2}
	})
	if err == nil {
		err = franzSend(topic, 400, 4)
	}
	if err == nil {
		err = eventually("400 records", 10, func() bool {
			mutex.Lock()
			defer mutex.Unlock()
			return len(seen) >= 400
		})
	}
	stop()
	workers.Wait()
	if err != nil {
		return fmt.Errorf("%w (shares %v, %d seen)", err, share, len(seen))
	}
	return exactlyOnce(seen, 4, 100)
}

func franzStatic() error {
	topic, err := franzTopic(2, nil)
	if err != nil {
		return err
	}
	if err := franzSend(topic, 2, 2); err != nil {
		return err
	}
	group := unique("g")
	var generations []int32
	for range 2 {
		client := member(topic, group, kgo.InstanceID("one"))
		if _, err := franzRead(client, 2); err != nil {
			return err
		}
		_, generation := client.GroupMetadata()
		generations = append(generations, generation)
		client.Close()
	}
	return equal("same generation after coming back", generations[0], generations[1])
}

func franzGroupAdmin() error {
	topic, err := franzTopic(1, nil)
	if err != nil {
		return err
	}
	if err := franzSend(topic, 10, 1); err != nil {
		return err
	}
	group := unique("g")
	client := member(topic, group)
	got, err := franzRead(client, 10)
	if err != nil {
		return err
	}
	if err := client.CommitRecords(within(10), got[5]); err != nil {
		return err
	}
	admin := franzAdmin()
	defer admin.Close()
	described, err := admin.DescribeGroups(within(10), group)
	if err != nil {
		return err
	}
	lags, err := admin.Lag(within(10), group)
	if err != nil {
		return err
	}
	listed, err := admin.ListGroups(within(10))
	if err != nil {
		return err
	}
	deleted, err := admin.DeleteGroups(within(10), group)
	if err != nil {
		return err
	}
	err = errors.Join(equal("state", described[group].State, "Stable"), equal("members", len(described[group].Members), 1),
		equal("lag", lags[group].Lag.Total(), int64(4)), equal("protocol", listed[group].ProtocolType, "consumer"),
		refused(kerr.NonEmptyGroup, deleted[group].Err))
	client.Close()
	if err != nil {
		return err
	}
	deleted, err = admin.DeleteGroups(within(10), group)
	if err != nil {
		return err
	}
	if deleted[group].Err != nil {
		return deleted[group].Err
	}
	again, err := admin.DeleteGroups(within(10), group)
	if err != nil {
		return err
	}
	return refused(kerr.GroupIDNotFound, again[group].Err)
}

func franzAutoCreate() error {
	return franzSend(unique("auto"), 3, 3, kgo.AllowAutoTopicCreation())
}

func franzTooLarge() error {
	limit := "1000"
	topic, err := franzTopic(1, map[string]*string{"max.message.bytes": &limit})
	if err != nil {
		return err
	}
	client := franz(kgo.ProducerBatchCompression(kgo.NoCompression()))
	defer client.Close()
	return refused(kerr.MessageTooLarge, client.ProduceSync(within(10), &kgo.Record{Topic: topic, Value: make([]byte, 5000)}).FirstErr())
}

func franzCluster() error {
	topic, err := franzTopic(1, nil)
	if err != nil {
		return err
	}
	admin := franzAdmin()
	defer admin.Close()
	err = eventually("the topic is in its log dir", 10, func() bool {
		dirs, err := admin.DescribeAllLogDirs(within(10), nil)
		_, found := dirs[1].LookupPartition(topic, 0)
		return err == nil && found
	})
	if err != nil {
		return err
	}
	metadata, err := admin.Metadata(within(10))
	if err != nil {
		return err
	}
	return errors.Join(equal("brokers", len(metadata.Brokers), replication),
		equal("cluster id", len(metadata.Cluster), 22), equal("controller is one of them", metadata.Controller >= 1 && int(metadata.Controller) <= replication, true))
}
