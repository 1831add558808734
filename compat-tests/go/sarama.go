package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/IBM/sarama"
)

// sarama is pinned to a protocol version by the program: these cases run once as 1.1.0 asks and once
// as the newest it knows.
func init() {
	for _, version := range []sarama.KafkaVersion{sarama.V1_1_0_0, sarama.MaxVersion} {
		suffix := ", as " + version.String()
		add("sarama", "create, list and delete a topic"+suffix, func() error { return saramaTopics(version) })
		add("sarama", "topic errors"+suffix, func() error { return saramaErrors(version) })
		for _, codec := range []sarama.CompressionCodec{
			sarama.CompressionNone, sarama.CompressionGZIP, sarama.CompressionSnappy, sarama.CompressionLZ4, sarama.CompressionZSTD,
		} {
			if codec == sarama.CompressionZSTD && version == sarama.V1_1_0_0 {
				continue
			}
			add("sarama", "produce and consume: "+codec.String()+suffix, func() error { return saramaCodec(version, codec) })
		}
		add("sarama", "idempotent producer"+suffix, func() error { return saramaIdempotent(version) })
		add("sarama", "offsets by timestamp"+suffix, func() error { return saramaOffsets(version) })
		add("sarama", "group: two members, commit and resume"+suffix, func() error { return saramaGroup(version) })
	}
}

func saramaConfig(version sarama.KafkaVersion) *sarama.Config {
	config := sarama.NewConfig()
	config.Version = version
	config.Producer.Return.Successes = true
	config.Producer.Partitioner = sarama.NewManualPartitioner
	config.Consumer.Offsets.Initial = sarama.OffsetOldest
	config.Consumer.Offsets.AutoCommit.Interval = 100 * time.Millisecond
	config.Consumer.Group.Session.Timeout = 6 * time.Second
	config.Consumer.Group.Heartbeat.Interval = 300 * time.Millisecond
	return config
}

func saramaTopic(config *sarama.Config, partitions int32) (string, error) {
	admin, err := sarama.NewClusterAdmin([]string{bootstrap}, config)
	if err != nil {
		return "", err
	}
	defer admin.Close()
	name := unique("sarama")
	if err := admin.CreateTopic(name, &sarama.TopicDetail{NumPartitions: partitions, ReplicationFactor: int16(replication)}, false); err != nil {
		return "", err
	}
	return name, everywhere(name, int(partitions))
}

func saramaTopics(version sarama.KafkaVersion) error {
	config := saramaConfig(version)
	name, err := saramaTopic(config, 3)
	if err != nil {
		return err
	}
	admin, err := sarama.NewClusterAdmin([]string{bootstrap}, config)
	if err != nil {
		return err
	}
	defer admin.Close()
	topics, err := admin.ListTopics()
	if err != nil {
		return err
	}
	if err := equal("partitions", topics[name].NumPartitions, int32(3)); err != nil {
		return err
	}
	if err := admin.DeleteTopic(name); err != nil {
		return err
	}
	return eventually("topic gone", 10, func() bool {
		topics, err := admin.ListTopics()
		_, there := topics[name]
		return err == nil && !there
	})
}

func saramaErrors(version sarama.KafkaVersion) error {
	config := saramaConfig(version)
	name, err := saramaTopic(config, 1)
	if err != nil {
		return err
	}
	admin, err := sarama.NewClusterAdmin([]string{bootstrap}, config)
	if err != nil {
		return err
	}
	defer admin.Close()
	one := &sarama.TopicDetail{NumPartitions: 1, ReplicationFactor: 1}
	return errors.Join(refused(sarama.ErrTopicAlreadyExists, admin.CreateTopic(name, one, false)),
		refused(sarama.ErrInvalidTopic, admin.CreateTopic("a b", one, false)),
		refused(sarama.ErrInvalidReplicationFactor,
			admin.CreateTopic(unique("rf"), &sarama.TopicDetail{NumPartitions: 1, ReplicationFactor: 9}, false)),
		refused(sarama.ErrUnknownTopicOrPartition, admin.DeleteTopic(unique("none"))))
}

func saramaSend(config *sarama.Config, topic string, messages ...*sarama.ProducerMessage) error {
	producer, err := sarama.NewSyncProducer([]string{bootstrap}, config)
	if err != nil {
		return err
	}
	defer producer.Close()
	for _, message := range messages {
		message.Topic = topic
	}
	return producer.SendMessages(messages)
}

func saramaRead(config *sarama.Config, topic string, from int64, n int) ([]*sarama.ConsumerMessage, error) {
	consumer, err := sarama.NewConsumer([]string{bootstrap}, config)
	if err != nil {
		return nil, err
	}
	defer consumer.Close()
	part, err := consumer.ConsumePartition(topic, 0, from)
	if err != nil {
		return nil, err
	}
	defer part.Close()
	var messages []*sarama.ConsumerMessage
	late := time.After(20 * time.Second)
	for len(messages) < n {
		select {
		case message := <-part.Messages():
			messages = append(messages, message)
		case <-late:
			return nil, fmt.Errorf("%d of %d messages", len(messages), n)
		}
	}
	return messages, nil
}

func saramaCodec(version sarama.KafkaVersion, codec sarama.CompressionCodec) error {
	config := saramaConfig(version)
	config.Producer.Compression = codec
	topic, err := saramaTopic(config, 1)
	if err != nil {
		return err
	}
	sent := make([]*sarama.ProducerMessage, 300)
	for i := range sent {
		sent[i] = &sarama.ProducerMessage{
			Key: sarama.StringEncoder(fmt.Sprintf("k%d", i)), Value: sarama.StringEncoder(fmt.Sprintf("%0200d", i)),
			Headers: []sarama.RecordHeader{{Key: []byte("h"), Value: fmt.Appendf(nil, "%d", i)}},
		}
	}
	if err := saramaSend(config, topic, sent...); err != nil {
		return err
	}
	got, err := saramaRead(config, topic, sarama.OffsetOldest, len(sent))
	if err != nil {
		return err
	}
	for i, m := range got {
		if string(m.Key) != fmt.Sprintf("k%d", i) || string(m.Value) != fmt.Sprintf("%0200d", i) || m.Offset != int64(i) ||
			len(m.Headers) != 1 || string(m.Headers[0].Value) != fmt.Sprint(i) {
			return fmt.Errorf("message %d is %v", i, m)
		}
	}
	return nil
}

func saramaIdempotent(version sarama.KafkaVersion) error {
	config := saramaConfig(version)
	config.Producer.Idempotent = true
	config.Producer.RequiredAcks = sarama.WaitForAll
	config.Net.MaxOpenRequests = 1
	topic, err := saramaTopic(config, 1)
	if err != nil {
		return err
	}
	sent := make([]*sarama.ProducerMessage, 2000)
	for i := range sent {
		sent[i] = &sarama.ProducerMessage{Value: sarama.StringEncoder(fmt.Sprint(i))}
	}
	if err := saramaSend(config, topic, sent...); err != nil {
		return err
	}
	got, err := saramaRead(config, topic, sarama.OffsetOldest, len(sent))
	if err != nil {
		return err
	}
	for i, m := range got {
		if string(m.Value) != fmt.Sprint(i) {
			return fmt.Errorf("offset %d holds %s", i, m.Value)
		}
	}
	return nil
}

func saramaOffsets(version sarama.KafkaVersion) error {
	config := saramaConfig(version)
	topic, err := saramaTopic(config, 1)
	if err != nil {
		return err
	}
	config.Producer.RequiredAcks = sarama.WaitForAll // what is asked below ends at the high watermark
	base := time.Now().UnixMilli() - 100000
	for i := range int64(10) {
		message := &sarama.ProducerMessage{Value: sarama.StringEncoder("x"), Timestamp: time.UnixMilli(base + i*1000)}
		if err := saramaSend(config, topic, message); err != nil {
			return err
		}
	}
	client, err := sarama.NewClient([]string{bootstrap}, config)
	if err != nil {
		return err
	}
	defer client.Close()
	at := func(time int64) int64 {
		offset, err := client.GetOffset(topic, 0, time)
		if err != nil {
			return -99
		}
		return offset
	}
	return errors.Join(equal("by time", at(base+4500), int64(5)), equal("oldest", at(sarama.OffsetOldest), int64(0)),
		equal("newest", at(sarama.OffsetNewest), int64(10)))
}

type saramaMember struct {
	mutex  sync.Mutex
	claims int
	seen   []string
}

func (m *saramaMember) Setup(session sarama.ConsumerGroupSession) error {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	m.claims = 0
	for _, parts := range session.Claims() {
		m.claims += len(parts)
	}
	return nil
}
func (*saramaMember) Cleanup(sarama.ConsumerGroupSession) error { return nil }
func (m *saramaMember) ConsumeClaim(session sarama.ConsumerGroupSession, claim sarama.ConsumerGroupClaim) error {
	for message := range claim.Messages() {
		m.mutex.Lock()
		m.seen = append(m.seen, fmt.Sprintf("%d/%d", message.Partition, message.Offset))
		m.mutex.Unlock()
		session.MarkMessage(message, "")
	}
	return nil
}

func (m *saramaMember) state() (int, []string) {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	return m.claims, append([]string{}, m.seen...)
}

func saramaGroup(version sarama.KafkaVersion) error {
	config := saramaConfig(version)
	topic, err := saramaTopic(config, 4)
	if err != nil {
		return err
	}
	group := unique("g")
	join := func() (*saramaMember, func(), error) {
		client, err := sarama.NewConsumerGroup([]string{bootstrap}, group, config)
		if err != nil {
			return nil, nil, err
		}
		m := &saramaMember{}
		ctx, stop := context.WithCancel(context.Background())
		done := make(chan struct{})
		go func() {
			defer close(done)
			for ctx.Err() == nil {
				_ = client.Consume(ctx, []string{topic}, m)
			}
		}()
		return m, func() { stop(); <-done; _ = client.Close() }, nil
	}
	send := func() error {
		messages := make([]*sarama.ProducerMessage, 200)
		for i := range messages {
			messages[i] = &sarama.ProducerMessage{Partition: int32(i % 4), Value: sarama.StringEncoder("x")}
		}
		return saramaSend(config, topic, messages...)
	}
	a, leaveA, err := join()
	if err != nil {
		return err
	}
	b, leaveB, err := join()
	if err != nil {
		return err
	}
	err = eventually("two partitions each", 25, func() bool {
		x, _ := a.state()
		y, _ := b.state()
		return x == 2 && y == 2
	})
	if err == nil {
		err = send()
	}
	seen := func() []string { _, x := a.state(); _, y := b.state(); return append(x, y...) }
	if err == nil {
		err = eventually("200 messages", 15, func() bool { return len(seen()) >= 200 })
	}
	leaveA()
	leaveB()
	if err != nil {
		return err
	}
	if err := exactlyOnce(seen(), 4, 50); err != nil {
		return err
	}
	// the offsets were committed on leaving: a new member sees only what is new
	if err := send(); err != nil {
		return err
	}
	c, leaveC, err := join()
	if err != nil {
		return err
	}
	defer leaveC()
	err = eventually("200 new messages", 20, func() bool { _, s := c.state(); return len(s) >= 200 })
	if err != nil {
		return err
	}
	_, fresh := c.state()
	return exactlyOnce(append(seen(), fresh...), 4, 100)
}
