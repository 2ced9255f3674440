// Drives one SDK from npm: a command a line on stdin, an answer a line on stdout. The state between
// commands, such as a cached token, is the SDK's own.
//
//   node client.js co-wechat-api BASE SECRET OFFICIAL_APPID MINI_APPID
'use strict';

const readline = require('readline');

const [sdk, base, secret, official, mini] = process.argv.slice(2);

// promised makes a promise of wechat-api's callbacks.
const promised = (call) => new Promise((resolve, reject) => {
  call((err, result) => (err ? reject(err) : resolve(result)));
});

function coWechatAPI() {
  const API = require('co-wechat-api');
  const of = (appid) => {
    const api = new API(appid, secret);
    api.prefix = base + '/cgi-bin/';
    api.snsPrefix = base + '/sns/';
    return api;
  };
  const [oa, mp] = [of(official), of(mini)];
  const post = async (api, path, body) => {
    const { accessToken } = await api.ensureAccessToken();
    return api.request(api.prefix + path + '?access_token=' + accessToken, {
      method: 'POST', data: JSON.stringify(body), headers: { 'Content-Type': 'application/json' },
    });
  };
  return {
    token: () => oa.ensureAccessToken(),
    login: (c) => mp.code2Session(c.code),
    template: (c) => oa.sendTemplate(c.openid, c.template, 'https://example.com', '#FF0000', c.data),
    subscribe: (c) => mp.sendSubscribeMessage(c.openid, c.template, 'pages/index', c.data),
    uniform: (c) => post(mp, 'message/wxopen/template/uniform_send', c.body),
  };
}

function wechatAPI() {
  const API = require('wechat-api');
  const of = (appid) => {
    const api = new API(appid, secret);
    api.endpoint = base;
    return api;
  };
  const [oa, mp] = [of(official), of(mini)];
  // It knows no calls of mini programs, so programs make them with its request.
  const post = (path, body) => promised((done) => mp.getLatestToken((err, token) => {
    if (err) {
      done(err);
      return;
    }
    mp.request(base + path + '?access_token=' + token.accessToken, {
      type: 'POST', dataType: 'json', contentType: 'json', data: body,
    }, (failed, data) => {
      if (!failed && data.errcode) {
        failed = Object.assign(new Error(data.errmsg), { code: data.errcode });
      }
      done(failed, data);
    });
  }));
  return {
    token: () => promised((done) => oa.getLatestToken(done)),
    login: (c) => promised((done) => mp.request(
      `${base}/sns/jscode2session?appid=${mini}&secret=${secret}&js_code=${c.code}&grant_type=authorization_code`,
      { dataType: 'json' }, (err, data) => done(err || (data.errcode ? Object.assign(new Error(data.errmsg), { code: data.errcode }) : null), data))),
    template: (c) => promised((done) => oa.sendTemplate(c.openid, c.template, 'https://example.com', '#FF0000', c.data, done)),
    subscribe: (c) => post('/cgi-bin/message/subscribe/send',
      { touser: c.openid, template_id: c.template, page: 'pages/index', data: c.data }),
    uniform: (c) => post('/cgi-bin/message/wxopen/template/uniform_send', c.body),
  };
}

function nodeEasyWechat() {
  const { MiniApp, OfficialAccount } = require('node-easywechat');
  const settings = (appid) => ({ app_id: appid, secret, http: { baseURL: base + '/' } });
  const [oa, mp] = [new OfficialAccount(settings(official)), new MiniApp(settings(mini))];
  const post = async (app, path, json) => {
    const data = (await app.getClient().postJson(path, json)).toObject();
    if (data.errcode) {
      throw Object.assign(new Error(data.errmsg), { code: data.errcode });
    }
    return data;
  };
  return {
    token: () => oa.getAccessToken().getToken(),
    login: (c) => mp.getUtils().codeToSession(c.code),
    template: (c) => post(oa, '/cgi-bin/message/template/send',
      { touser: c.openid, template_id: c.template, url: 'https://example.com', data: c.data }),
    subscribe: (c) => post(mp, '/cgi-bin/message/subscribe/send',
      { touser: c.openid, template_id: c.template, page: 'pages/index', data: c.data }),
    uniform: (c) => post(mp, '/cgi-bin/message/wxopen/template/uniform_send', c.body),
  };
}

const calls = { 'co-wechat-api': coWechatAPI, 'wechat-api': wechatAPI, 'node-easywechat': nodeEasyWechat }[sdk]();

(async () => {
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const command = JSON.parse(line);
    let answer;
    try {
      const result = await calls[command.do](command);
      answer = { ok: true, result: JSON.parse(JSON.stringify(result === undefined ? null : result)) };
    } catch (err) {
      answer = { ok: false, code: err.code || 0, error: String(err.message || err) };
    }
    process.stdout.write(JSON.stringify(answer) + '\n');
  }
})();
