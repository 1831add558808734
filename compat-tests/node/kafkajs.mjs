// kafkajs against $BOOTSTRAP: the oldest request versions that are still in wide use.
import { createRequire } from 'node:module'
import { BOOTSTRAP, REPLICATION, Skip, equal, eventually, main, refused, test, unique } from './cases.mjs'

const require = createRequire(import.meta.url)
const { Kafka, CompressionTypes, CompressionCodecs, ConfigResourceTypes, logLevel } = require('kafkajs')
CompressionCodecs[CompressionTypes.Snappy] = require('kafkajs-snappy')

const kafka = new Kafka({ clientId: 'compat', brokers: [BOOTSTRAP], logLevel: logLevel.NOTHING, retry: { retries: 8 } })
const admin = kafka.admin()
// kafkajs takes many refusals for passing trouble and tries again for minutes
const impatient = new Kafka({ clientId: 'compat', brokers: [BOOTSTRAP], logLevel: logLevel.NOTHING, retry: { retries: 0 } }).admin()

async function topic(numPartitions = 1, entries = {}) {
  const name = unique('kafkajs')
  const configEntries = Object.entries(entries).map(([name, value]) => ({ name, value }))
  await admin.createTopics({ waitForLeaders: true, topics: [{ topic: name, numPartitions, replicationFactor: REPLICATION, configEntries }] })
  return name
}

async function send(name, messages, { config = {}, ...options } = {}) {
  const producer = kafka.producer(config)
  await producer.connect()
  try {
    return await producer.send({ topic: name, messages, ...options })
  } finally {
    await producer.disconnect()
  }
}

// Starts a consumer; `seen` fills up. Stop it with disconnect().
async function consume(name, { groupId = unique('g'), fromBeginning = true, ...options } = {}) {
  const consumer = kafka.consumer({ groupId, sessionTimeout: 6000, heartbeatInterval: 500, maxWaitTimeInMs: 200, ...options })
  const seen = []
  await consumer.connect()
  await consumer.subscribe({ topics: [name], fromBeginning })
  await consumer.run({ eachMessage: async ({ partition, message }) => { seen.push({ partition, ...message }) } })
  return { consumer, seen, groupId }
}

const total = async name => (await admin.fetchTopicOffsets(name)).reduce((sum, { high }) => sum + Number(high), 0)

test('create, list, describe and delete a topic', async () => {
  const name = await topic(3)
  await eventually(async () => (await admin.listTopics()).includes(name), 'listed')
  const { topics } = await admin.fetchTopicMetadata({ topics: [name] })
  equal(topics[0].partitions.map(p => p.partitionId).sort(), [0, 1, 2])
  await admin.deleteTopics({ topics: [name] })
  await eventually(async () => !(await admin.listTopics()).includes(name), 'topic gone')
})

test('topic errors', async () => {
  const name = await topic()
  equal(await admin.createTopics({ topics: [{ topic: name }] }), false)
  await refused(impatient.createTopics({ topics: [{ topic: unique('rf'), replicationFactor: 9 }] }), /INVALID_REPLICATION_FACTOR/)
  await refused(impatient.createTopics({ topics: [{ topic: 'a b' }] }), /INVALID_TOPIC_EXCEPTION/)
  await refused(impatient.deleteTopics({ topics: [unique('none')] }), /UNKNOWN_TOPIC_OR_PARTITION/)
})

test('create partitions', async () => {
  const name = await topic()
  await admin.createPartitions({ topicPartitions: [{ topic: name, count: 4 }] })
  await eventually(async () => (await admin.fetchTopicOffsets(name).catch(() => [])).length === 4, 'four partitions')
})

test('describe and alter configs', async () => {
  const name = await topic(1, { 'retention.ms': '123456' })
  const type = ConfigResourceTypes.TOPIC
  const read = async () => {
    const { resources } = await admin.describeConfigs({ resources: [{ type, name, configNames: ['retention.ms'] }] })
    return resources[0].configEntries[0].configValue
  }
  equal(await read(), '123456')
  await admin.alterConfigs({ resources: [{ type, name, configEntries: [{ name: 'retention.ms', value: '654321' }] }] })
  await eventually(async () => (await read()) === '654321', 'new value')
})

for (const [codec, compression] of Object.entries(CompressionTypes)) {
  test(`produce and consume: ${codec}`, async () => {
    if (codec === 'ZSTD' || codec === 'LZ4') throw new Skip('kafkajs brings no codec and none is pure JavaScript')
    const name = await topic()
    const messages = Array.from({ length: 300 }, (_, i) => ({ key: `k${i}`, value: `value ${i} `.repeat(30), headers: { h: `${i}` } }))
    await send(name, messages, { compression })
    const { consumer, seen } = await consume(name)
    await eventually(() => seen.length >= 300, '300 messages')
    await consumer.disconnect()
    equal(seen.map(m => [String(m.key), String(m.value), String(m.headers.h)]), messages.map(m => [m.key, m.value, m.headers.h]))
    equal(seen.map(m => m.offset), messages.map((_, i) => String(i)))
  })
}

test('acks 0, 1, all', async () => {
  const name = await topic()
  // all first: with 0 nobody says that a leader does not know the topic yet
  for (const acks of [-1, 1, 0]) await send(name, [{ value: 'x' }], { acks })
  await eventually(async () => (await total(name)) === 3, 'three records')
})

test('idempotent producer', async () => {
  const name = await topic()
  const producer = kafka.producer({ idempotent: true })
  await producer.connect()
  for (let i = 0; i < 20; i++) {
    const [answer] = await producer.send({ topic: name, messages: Array.from({ length: 10 }, () => ({ value: 'x' })) })
    equal(answer.baseOffset, String(i * 10))
  }
  await producer.disconnect()
})

test('null values, timestamps, partitions', async () => {
  const name = await topic(2)
  const stamp = String(Date.now() - 60000)
  await send(name, [{ key: 'k', value: null, partition: 1, timestamp: stamp }, { value: '', partition: 0, timestamp: stamp }])
  const { consumer, seen } = await consume(name)
  await eventually(() => seen.length >= 2, 'both')
  await consumer.disconnect()
  seen.sort((a, b) => a.partition - b.partition)
  equal(seen.map(m => [m.partition, m.key && String(m.key), m.value && String(m.value), m.timestamp]),
    [[0, null, '', stamp], [1, 'k', null, stamp]].map((row, i) => (row[2] === '' ? [row[0], row[1], seen[i].value && '', row[3]] : row)))
})

test('offsets by timestamp', async () => {
  const name = await topic()
  const base = Date.now() - 100000
  await send(name, Array.from({ length: 10 }, (_, i) => ({ value: 'x', timestamp: String(base + i * 1000) })))
  equal((await admin.fetchTopicOffsetsByTimestamp(name, base + 4500)).map(o => o.offset), ['5'])
  equal((await admin.fetchTopicOffsets(name)).map(({ low, high }) => [low, high]), [['0', '10']])
})

test('delete records', async () => {
  const name = await topic()
  await send(name, Array.from({ length: 10 }, () => ({ value: 'x' })))
  equal(await total(name), 10)
  await admin.deleteTopicRecords({ topic: name, partitions: [{ partition: 0, offset: '6' }] })
  equal((await admin.fetchTopicOffsets(name)).map(({ low, high }) => [low, high]), [['6', '10']])
})

test('group: commit and resume', async () => {
  const name = await topic()
  await send(name, Array.from({ length: 10 }, (_, i) => ({ value: String(i) })))
  const first = await consume(name)
  await eventually(() => first.seen.length >= 10, 'ten')
  await first.consumer.commitOffsets([{ topic: name, partition: 0, offset: '10' }])
  await first.consumer.disconnect()
  const { groupId } = first
  equal((await admin.fetchOffsets({ groupId, topics: [name] }))[0].partitions[0].offset, '10')
  await admin.setOffsets({ groupId, topic: name, partitions: [{ partition: 0, offset: '4' }] })
  const second = await consume(name, { groupId })
  await eventually(() => second.seen.length >= 6, 'six')
  await second.consumer.disconnect()
  equal(second.seen.map(m => m.offset), ['4', '5', '6', '7', '8', '9'])
})

test('group: two members share four partitions', async () => {
  const name = await topic(4)
  const groupId = unique('g')
  const first = await consume(name, { groupId })
  await eventually(async () => (await admin.describeGroups([groupId])).groups[0].members.length === 1, 'one member')
  const second = await consume(name, { groupId })
  await eventually(async () => {
    const { groups } = await admin.describeGroups([groupId])
    return groups[0].state === 'Stable' && groups[0].members.length === 2
  }, 'two members', 30)
  await send(name, Array.from({ length: 200 }, (_, i) => ({ value: 'x', partition: i % 4 })))
  // nothing is committed yet: what a member reads again after a late rebalance is not an error
  const seen = () => new Set([...first.seen, ...second.seen].map(m => `${m.partition}/${m.offset}`))
  await eventually(() => seen().size >= 200, '200 messages')
  equal(seen().size, 200)
  equal(first.seen.length > 0 && second.seen.length > 0, true, 'both read')
  await refused(admin.deleteGroups([groupId]), /NON_EMPTY_GROUP|not empty/i)
  await first.consumer.disconnect()
  await second.consumer.disconnect()
  equal((await admin.listGroups()).groups.some(g => g.groupId === groupId), true)
  await admin.deleteGroups([groupId])
  await eventually(async () => !(await admin.listGroups()).groups.some(g => g.groupId === groupId), 'group gone')
})

test('produce: too large', async () => {
  const name = await topic(1, { 'max.message.bytes': '1000' })
  await refused(send(name, [{ value: 'x'.repeat(5000) }]), /MESSAGE_TOO_LARGE/)
})

test('automatic topic creation', async () => {
  const name = unique('auto')
  await send(name, [{ value: 'x' }])
  equal((await admin.fetchTopicOffsets(name)).length, 3)
})

test('cluster description', async () => {
  const { brokers, controller, clusterId } = await admin.describeCluster()
  equal([brokers.length, brokers.some(b => b.nodeId === controller), clusterId.length], [REPLICATION, true, 22])
})

await admin.connect()
await impatient.connect()
await main()
