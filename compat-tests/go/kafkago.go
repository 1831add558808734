package main

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"time"

	"github.com/segmentio/kafka-go"
)

// kafka-go asks for old request versions (Produce 7, Fetch 10, JoinGroup 1) and writes its frames itself.
func init() {
	add("kafkago", "create, read partitions of and delete a topic", kafkagoTopics)
	for name, codec := range map[string]kafka.Compression{
		"none": 0, "gzip": kafka.Gzip, "snappy": kafka.Snappy, "lz4": kafka.Lz4, "zstd": kafka.Zstd,
	} {
		add("kafkago", "write and read: "+name, func() error { return kafkagoCodec(codec) })
	}
	add("kafkago", "offsets by timestamp", kafkagoOffsets)
	add("kafkago", "group: commit and resume", kafkagoGroup)
	add("kafkago", "write to an unknown topic", kafkagoUnknown)
}

func kafkagoTopic(partitions int) (string, error) {
	conn, err := kafka.Dial("tcp", bootstrap)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	name := unique("kafkago")
	if err := conn.CreateTopics(kafka.TopicConfig{Topic: name, NumPartitions: partitions, ReplicationFactor: replication}); err != nil {
		return "", err
	}
	return name, everywhere(name, partitions)
}

// everywhere waits until each node knows a topic and its leaders: as with Apache Kafka, the one that is asked next may hear of the
// topic after the one that created it. kafka-go asks the node that it dialled; the other clients ask any.
func everywhere(topic string, partitions int) error {
	conn, err := kafka.Dial("tcp", bootstrap)
	if err != nil {
		return err
	}
	defer conn.Close()
	brokers, err := conn.Brokers()
	if err != nil {
		return err
	}
	for _, broker := range brokers {
		node, err := kafka.Dial("tcp", net.JoinHostPort(broker.Host, strconv.Itoa(broker.Port)))
		if err != nil {
			return err
		}
		defer node.Close()
		err = eventually(fmt.Sprintf("%s known at node %d", topic, broker.ID), 10, func() bool {
			parts, err := node.ReadPartitions(topic)
			return err == nil && len(parts) == partitions && !slices.ContainsFunc(parts, func(p kafka.Partition) bool { return p.Leader.Host == "" })
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func kafkagoTopics() error {
	name, err := kafkagoTopic(3)
	if err != nil {
		return err
	}
	conn, err := kafka.Dial("tcp", bootstrap)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.DeleteTopics(name); err != nil {
		return err
	}
	return eventually("topic gone", 10, func() bool {
		parts, err := conn.ReadPartitions()
		if err != nil {
			return false
		}
		for _, part := range parts {
			if part.Topic == name {
				return false
			}
		}
		return true
	})
}

func kafkagoWriter(topic string) *kafka.Writer {
	return &kafka.Writer{Addr: kafka.TCP(bootstrap), Topic: topic, RequiredAcks: kafka.RequireAll, BatchTimeout: 20 * time.Millisecond,
		// a fresh one, or it goes on believing the topics it knew
		Transport: &kafka.Transport{MetadataTTL: 100 * time.Millisecond}}
}

func kafkagoCodec(codec kafka.Compression) error {
	topic, err := kafkagoTopic(1)
	if err != nil {
		return err
	}
	writer := kafkagoWriter(topic)
	writer.Compression = codec
	defer writer.Close()
	messages := make([]kafka.Message, 200)
	for i := range messages {
		messages[i] = kafka.Message{
			Key: fmt.Appendf(nil, "k%d", i), Value: fmt.Appendf(nil, "%0200d", i),
			Headers: []kafka.Header{{Key: "h", Value: fmt.Appendf(nil, "%d", i)}},
		}
	}
	if err := writer.WriteMessages(within(20), messages...); err != nil {
		return err
	}
	reader := kafka.NewReader(kafka.ReaderConfig{Brokers: []string{bootstrap}, Topic: topic, MaxWait: 200 * time.Millisecond})
	defer reader.Close()
	for i := range messages {
		m, err := reader.ReadMessage(within(15))
		if err != nil {
			return fmt.Errorf("message %d: %w", i, err)
		}
		if m.Offset != int64(i) || string(m.Key) != fmt.Sprintf("k%d", i) || string(m.Value) != fmt.Sprintf("%0200d", i) ||
			len(m.Headers) != 1 || string(m.Headers[0].Value) != fmt.Sprint(i) {
			return fmt.Errorf("message %d is %v", i, m)
		}
	}
	return nil
}

func kafkagoOffsets() error {
	topic, err := kafkagoTopic(1)
	if err != nil {
		return err
	}
	writer := kafkagoWriter(topic)
	defer writer.Close()
	base := time.Now().Add(-100 * time.Second)
	for i := range 10 {
		m := kafka.Message{Value: []byte("x"), Time: base.Add(time.Duration(i) * time.Second)}
		if err := writer.WriteMessages(within(10), m); err != nil {
			return err
		}
	}
	conn, err := kafka.DialLeader(within(10), "tcp", bootstrap, topic, 0)
	if err != nil {
		return err
	}
	defer conn.Close()
	at, err := conn.ReadOffset(base.Add(4500 * time.Millisecond))
	if err != nil {
		return err
	}
	first, last, err := conn.ReadOffsets()
	return errors.Join(err, equal("by time", at, int64(5)), equal("first", first, int64(0)), equal("last", last, int64(10)))
}

func kafkagoGroup() error {
	topic, err := kafkagoTopic(2)
	if err != nil {
		return err
	}
	writer := kafkagoWriter(topic)
	defer writer.Close()
	messages := make([]kafka.Message, 20)
	for i := range messages {
		messages[i].Value = fmt.Appendf(nil, "%d", i)
	}
	if err := writer.WriteMessages(within(20), messages...); err != nil {
		return err
	}
	group := unique("g")
	seen := map[string]int{}
	for range 2 {
		reader := kafka.NewReader(kafka.ReaderConfig{
			Brokers: []string{bootstrap}, GroupID: group, Topic: topic, StartOffset: kafka.FirstOffset,
			MaxWait: 200 * time.Millisecond, SessionTimeout: 6 * time.Second, HeartbeatInterval: 500 * time.Millisecond,
		})
		for range 10 {
			m, err := reader.FetchMessage(within(20))
			if err != nil {
				return err
			}
			if err := reader.CommitMessages(within(10), m); err != nil {
				return err
			}
			seen[string(m.Value)]++
		}
		if err := reader.Close(); err != nil {
			return err
		}
	}
	return equal("different messages", len(seen), 20)
}

func kafkagoUnknown() error {
	writer := kafkagoWriter(unique("none"))
	writer.MaxAttempts = 1
	defer writer.Close()
	err := writer.WriteMessages(within(10), kafka.Message{Value: []byte("x")})
	if !errors.Is(err, kafka.UnknownTopicOrPartition) {
		var dial *net.OpError
		return fmt.Errorf("got %v (%v), want UnknownTopicOrPartition", err, errors.As(err, &dial))
	}
	return nil
}
