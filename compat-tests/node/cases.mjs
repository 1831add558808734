// The frame of the client programs: each case prints `ok NAME`, `FAIL NAME` or `skip NAME: why` (read by env.sh).
import { randomBytes } from 'node:crypto'
import { inspect, isDeepStrictEqual } from 'node:util'

export const BOOTSTRAP = process.env.BOOTSTRAP
// how many brokers there are, and how many replicas a partition gets: 1 or 3
export const REPLICATION = Number(process.env.REPLICATION)
const cases = []

// @platformatic/kafka wants it; Node has it from 22 on
Promise.withResolvers ??= function () {
  const parts = {}
  parts.promise = new this((resolve, reject) => Object.assign(parts, { resolve, reject }))
  return parts
}

export class Skip extends Error {}
export const test = (name, run) => cases.push([name, run])
export const unique = prefix => `${prefix}-${randomBytes(4).toString('hex')}`
const sleep = ms => new Promise(resolve => setTimeout(resolve, ms))

export function equal(got, want, what = '') {
  if (!isDeepStrictEqual(got, want)) throw new Error(`${what} got ${inspect(got)}, want ${inspect(want)}`)
}

export async function eventually(condition, what, seconds = 15) {
  const end = Date.now() + seconds * 1000
  while (Date.now() < end) {
    const value = await condition()
    if (value) return value
    await sleep(100)
  }
  throw new Error(`not within ${seconds} s: ${what}`)
}

// refused(promise, /text/) : the promise must fail with an error whose text, causes included, matches
export async function refused(promise, pattern) {
  try {
    await promise
  } catch (error) {
    const text = inspect(error, { depth: 6 })
    if (!pattern.test(text)) throw new Error(`wrong error: ${text.slice(0, 500)}`)
    return
  }
  throw new Error(`accepted, want ${pattern}`)
}

export async function main(secondsPerCase = 60) {
  let failed = 0
  for (const [name, run] of cases) {
    if (process.argv.length > 2 && !process.argv.slice(2).includes(name)) continue
    const start = Date.now()
    let timer
    const late = new Promise((_, reject) => {
      timer = setTimeout(() => reject(new Error(`not done within ${secondsPerCase} s`)), secondsPerCase * 1000)
    })
    try {
      await Promise.race([run(), late])
      console.log(`ok ${name} (${((Date.now() - start) / 1000).toFixed(1)} s)`)
    } catch (error) {
      if (error instanceof Skip) {
        console.log(`skip ${name}: ${error.message}`)
      } else {
        failed++
        console.log(`FAIL ${name}`)
        console.error(error)
      }
    } finally {
      clearTimeout(timer)
    }
  }
  process.exit(failed ? 1 : 0) // clients may leave sockets open
}
