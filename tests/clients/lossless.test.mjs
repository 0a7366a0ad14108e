// The vectors' JSON reader tells apart what JSON.parse confuses; the other suites rely on it.
import assert from 'node:assert/strict';
import test from 'node:test';
import { parse, sameJson, slice } from './lossless.mjs';

test('numbers keep their kind and every bit', () => {
  assert.ok(sameJson('9007199254740993', '9007199254740993'));
  for (const [a, b] of [
    ['9007199254740993', '9007199254740992'],
    ['18446744073709551615', '18446744073709551614'],
    ['1', '1.0'],
    ['0', '-0'],
    ['-0.0', '0.0'],
    ['18446744073709551616', '18446744073709551615'],
  ]) {
    assert.ok(!sameJson(a, b), `${a} and ${b} differ`);
  }
  assert.ok(sameJson('1e3', '1000.0'), 'doubles are compared as doubles');
});

test('objects compare without order, arrays with it', () => {
  assert.ok(sameJson('{"a":1,"b":[1,{"c":null}]}', ' { "b" : [ 1 , { "c" : null } ] , "a" : 1 } '));
  assert.ok(!sameJson('[1,2]', '[2,1]'));
  assert.ok(!sameJson('{"a":null}', '{}'));
  assert.ok(!sameJson('{"__proto__":1}', '{}'), '__proto__ is an ordinary key');
});

test('a slice is the exact text of a member', () => {
  const line = '{"name":"x\\"}","old": {"n":1.0, "name":2} ,"ops":[]}';
  assert.equal(slice(line, 'old'), '{"n":1.0, "name":2}');
  assert.equal(slice(line, 'name'), '"x\\"}"');
  assert.equal(slice(line, 'new'), undefined);
});

test('what is not JSON is refused', () => {
  for (const text of ['', '{', '[1,]', '{"a"}', '01', 'nul', '1 2', '"a']) {
    assert.throws(() => parse(text), SyntaxError, text);
  }
});
