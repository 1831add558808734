// @platformatic/kafka against $BOOTSTRAP: a young client that speaks the newest request versions.
import { Admin, Consumer, Producer, ProduceAcks, stringDeserializers, stringSerializers } from '@platformatic/kafka'
import { BOOTSTRAP, REPLICATION, Skip, equal, eventually, main, refused, test, unique } from './cases.mjs'

const base = { clientId: 'compat', bootstrapBrokers: [BOOTSTRAP] }
const admin = new Admin(base)

async function topic(partitions = 1, configs = {}) {
  const name = unique('platformatic')
  await admin.createTopics({
    topics: [name],
    partitions,
    replicas: REPLICATION,
    configs: Object.entries(configs).map(([name, value]) => ({ name, value }))
  })
  return name
}

async function send(topic, messages, options = {}) {
  const producer = new Producer({ ...base, serializers: stringSerializers, ...options })
  try {
    return await producer.send({ messages: messages.map(message => ({ topic, ...message })), acks: options.acks ?? ProduceAcks.ALL })
  } finally {
    await producer.close()
  }
}

async function consume(topic, { groupId = unique('g'), mode = 'earliest', ...options } = {}) {
  const consumer = new Consumer({ ...base, groupId, deserializers: stringDeserializers, sessionTimeout: 6000, heartbeatInterval: 500, maxWaitTime: 200, ...options })
  const seen = []
  const stream = await consumer.consume({ topics: [topic], mode, fallbackMode: 'earliest', autocommit: false })
  stream.on('data', message => seen.push(message))
  stream.on('error', () => {})
  return { consumer, stream, seen, groupId, close: () => consumer.close(true) }
}

test('create, list and delete a topic', async () => {
  const name = await topic(3)
  await eventually(async () => (await admin.listTopics()).includes(name), 'listed')
  // each node hears of the topic in its own time
  const count = async () => (await admin.metadata({ topics: [name] }).catch(() => null))?.topics.get(name)?.partitionsCount
  await eventually(async () => (await count()) === 3, 'described')
  await admin.deleteTopics({ topics: [name] })
  await eventually(async () => !(await admin.listTopics()).includes(name), 'gone')
})

test('topic errors', async () => {
  const name = await topic()
  await refused(admin.createTopics({ topics: [name], partitions: 1, replicas: 1 }), /TOPIC_ALREADY_EXISTS|already exists/i)
  await refused(admin.createTopics({ topics: [unique('rf')], partitions: 1, replicas: 9 }), /INVALID_REPLICATION_FACTOR/)
  await refused(admin.deleteTopics({ topics: [unique('none')] }), /UNKNOWN_TOPIC_OR_PARTITION/)
})

for (const compression of ['none', 'gzip', 'snappy', 'lz4', 'zstd']) {
  test(`produce and consume: ${compression}`, async () => {
    if (compression === 'zstd' && !process.getBuiltinModule?.('zlib')?.zstdCompressSync) {
      throw new Skip('this Node has no zstd')
    }
    const name = await topic()
    const messages = Array.from({ length: 300 }, (_, i) => ({ key: `k${i}`, value: `value ${i} `.repeat(30), headers: { h: `${i}` } }))
    await send(name, messages, { compression })
    const { seen, close } = await consume(name)
    await eventually(() => seen.length >= 300, '300 messages')
    await close()
    equal(seen.map(m => [m.key, m.value, m.headers.get('h')]), messages.map(m => [m.key, m.value, m.headers.h]))
    equal(seen.map(m => m.offset), messages.map((_, i) => BigInt(i)))
  })
}

test('idempotent producer', async () => {
  const name = await topic()
  const producer = new Producer({ ...base, serializers: stringSerializers, idempotent: true })
  for (let i = 0; i < 20; i++) {
    const { offsets } = await producer.send({ messages: Array.from({ length: 10 }, () => ({ topic: name, value: 'x' })) })
    equal(offsets[0].offset, BigInt(i * 10))
  }
  await producer.close()
})

test('acks 0 and 1', async () => {
  const name = await topic()
  await send(name, [{ value: 'x' }], { acks: ProduceAcks.LEADER })
  await send(name, [{ value: 'x' }], { acks: ProduceAcks.NO_RESPONSE })
  const { seen, close } = await consume(name)
  await eventually(() => seen.length >= 2, 'both')
  await close()
})

test('offsets by timestamp', async () => {
  const name = await topic()
  const start = Date.now() - 100000
  await send(name, Array.from({ length: 10 }, (_, i) => ({ value: 'x', timestamp: BigInt(start + i * 1000) })))
  const consumer = new Consumer({ ...base, groupId: unique('g') })
  equal((await consumer.listOffsets({ topics: [name], timestamp: BigInt(start + 4500) })).get(name), [5n])
  equal((await consumer.listOffsets({ topics: [name], timestamp: -1n })).get(name), [10n])
  equal((await consumer.listOffsets({ topics: [name], timestamp: -2n })).get(name), [0n])
  await consumer.close()
})

test('group: commit and resume', async () => {
  const name = await topic()
  await send(name, Array.from({ length: 10 }, (_, i) => ({ value: String(i) })))
  const first = await consume(name)
  await eventually(() => first.seen.length >= 10, 'ten')
  await first.consumer.commit({ offsets: [{ topic: name, partition: 0, offset: 4n, leaderEpoch: 0 }] })
  await first.close()
  const second = await consume(name, { groupId: first.groupId, mode: 'committed' })
  await eventually(() => second.seen.length >= 6, 'six', 20)
  await second.close()
  equal(second.seen[0].offset, 4n)
})

test('group: two members share four partitions', async () => {
  const name = await topic(4)
  const groupId = unique('g')
  const first = await consume(name, { groupId })
  const second = await consume(name, { groupId })
  const share = member => (member.consumer.assignments ?? []).flatMap(a => a.partitions).length
  await eventually(() => share(first) === 2 && share(second) === 2, 'two partitions each', 30)
  await send(name, Array.from({ length: 200 }, (_, i) => ({ value: 'x', partition: i % 4 })))
  // the client begins its partitions anew after each rebalance, also while messages arrive: it may see one twice
  const seen = () => new Set([...first.seen, ...second.seen].map(m => `${m.partition}/${m.offset}`))
  await eventually(() => seen().size >= 200, '200 messages')
  equal(seen().size, 200)
  const described = (await admin.describeGroups({ groups: [groupId] })).get(groupId)
  equal([described.state, described.members.size], ['Stable', 2])
  await first.close()
  await second.close()
  await admin.deleteGroups({ groups: [groupId] })
  await eventually(async () => !(await admin.listGroups()).has(groupId), 'group gone')
})

await main()
