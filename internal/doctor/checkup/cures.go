package checkup

// cures are what to do about what was seen, where it is known better than by the check alone. Both
// texts have the same verbs.
var cures = map[string]Text{ //nolint:gochecknoglobals // constant
	"bom":   {"Save the file as UTF-8 without BOM: %s.", "把文件存为不带 BOM 的 UTF-8：%s。"},
	"tab":   {"Line %d: indent with blanks; YAML allows no tab there.", "第 %d 行：用空格缩进，YAML 不允许在这里用制表符。"},
	"chmod": {"chmod 640 %s, and give it to the daemon's group.", "执行 chmod 640 %s，并把属组设为运行用户的组。"},
	"appsecret": {"%s: copy the AppSecret once more: the console shows 32 of 0-9 and a-f.",
		"%s：重新复制 AppSecret，后台显示的是 32 位的 0-9、a-f。"},
	"variable": {"%s: variables are not expanded here; use the key with _env and the name without $.",
		"%s：这里不展开变量；请改用以 _env 结尾的键，写变量名，不带 $。"},
	"blank": {"%s: take away the blank before or behind the value.", "%s：去掉值前后的空格。"},
	"aeskey": {"%s: copy the EncodingAESKey once more: it has 43 characters.",
		"%s：重新复制 EncodingAESKey，应为 43 个字符。"},
	"credential": {"systemctl edit unionbridge, paste the two lines [Service] and " +
		"LoadCredential=%s:%s, then systemctl daemon-reload.",
		"执行 systemctl edit unionbridge，写入两行 [Service] 和 LoadCredential=%s:%s，再执行 systemctl daemon-reload。"},
	"absolute": {"Write the name %s without its folder in the configuration, and add to the unit " +
		"LoadCredential=%[1]s:%[2]s.", "配置里只写文件名 %s，不写目录，并在单元里加 LoadCredential=%[1]s:%[2]s。"},
	"oldunit": {"Install the unit of this version over %s, keep your changes in a drop-in, then " +
		"systemctl daemon-reload.", "用本版本的单元替换 %s，自己的修改放进 drop-in，再执行 systemctl daemon-reload。"},
	"readable": {"chgrp unionbridge %s; chmod 640 %[1]s. With DynamicUser=yes: chmod 644, and the " +
		"secrets in files of their own.", "执行 chgrp unionbridge %s; chmod 640 %[1]s。单元用 DynamicUser=yes 时：chmod 644，密钥放单独的文件。"},
	"statedir": {"install -d -o unionbridge -g unionbridge -m 0700 %s", "执行 install -d -o unionbridge -g unionbridge -m 0700 %s"},
	"full": {"Free space in %s: a sweep writes up to 30 bytes for each follower there.",
		"给 %s 腾出空间：比对时每个关注者最多写 30 字节。"},
	"taken": {"End the program that holds %s (ss -ltnp shows it), or set %s to another port.",
		"停掉占用 %s 的程序（用 ss -ltnp 查看），或把 %s 改成别的端口。"},
	"address": {"Set %s to an address of this machine.", "把 %s 改成本机的地址。"},
	"clock": {"Set this machine's clock by NTP (timedatectl set-ntp true), and that of %s.",
		"用 NTP 校准本机时钟（timedatectl set-ntp true），以及%s的时钟。"},
	"refused": {"Start the server at %s, or correct the address in database.dsn.",
		"启动 %s 上的数据库，或改正 database.dsn 里的地址。"},
	"tls": {"End database.dsn with ?tls=true: the server takes TLS only.",
		"在 database.dsn 末尾加 ?tls=true：服务器只接受 TLS。"},
	"denied": {"Correct the password, or as an administrator: CREATE USER %s IDENTIFIED BY '…'; " +
		"GRANT unionbridge_daemon TO %[1]s; and make it the default role. REQUIRE SSL gives the same " +
		"error: then end database.dsn with ?tls=true.",
		"改正密码，或以管理员身份执行：CREATE USER %s IDENTIFIED BY '…'; GRANT unionbridge_daemon TO %[1]s; " +
			"并设为默认角色。用户要求 SSL 时也是这个错误，此时在 database.dsn 末尾加 ?tls=true。"},
	"schemadenied": {"As an administrator: GRANT unionbridge_daemon TO the user of database.dsn, and " +
		"make it the default role; unionbridge grants prints the roles of %s.",
		"以管理员身份把 unionbridge_daemon 授予 database.dsn 的用户并设为默认角色；unionbridge grants 打印 %s 的角色。"},
	"noschema": {"CREATE DATABASE %s CHARACTER SET utf8mb4; then unionbridge migrate up.",
		"执行 CREATE DATABASE %s CHARACTER SET utf8mb4; 再执行 unionbridge migrate up。"},
	"version": {"Upgrade the server to MariaDB 10.6 or MySQL 8.0, or later: it is %s.",
		"把数据库升级到 MariaDB 10.6 或 MySQL 8.0 以上，现在是 %s。"},
	"setglobal": {"SET GLOBAL %s, and the same in the server's file.", "执行 SET GLOBAL %s，并写进数据库的配置文件。"},
	"grant":     {"%s", "执行 %s"},
	"migrate":   {"unionbridge migrate up", "执行 unionbridge migrate up"},
	"newer": {"Install the unionbridge that migrated it: the schema has version %d, this program " +
		"knows %d.", "安装执行过迁移的那个版本：表结构是版本 %d，本程序只认识 %d。"},
	"restored": {"%s serves this installation from another database. Do not start a daemon here: " +
		"unionbridge restored makes the copy an installation of its own.",
		"%s 正在另一个数据库上运行同一套安装。不要在这里启动守护进程：unionbridge restored 会让副本成为独立的安装。"},
	"wrong_secret": {"The AppSecret is wrong: put the one of the console, 设置与开发 → 开发接口管理, into the " +
		"configured secret and restart.", "AppSecret 不对：把「设置与开发 → 开发接口管理」里的 AppSecret 写进配置的密钥，再重启。"},
	"ip_not_allowed": {"Add the address in the message to the console, 设置与开发 → 开发接口管理 → IP白名单.",
		"把消息里的地址加进「设置与开发 → 开发接口管理 → IP白名单」。"},
	"invalid_appid": {"Compare the appid with the console, 设置与开发 → 开发接口管理.", "和「设置与开发 → 开发接口管理」核对 AppID。"},
	"no_permission": {"The account may not make this call: it must be a verified service account " +
		"(接口权限 in the console).", "账号没有这个接口的权限：必须是已认证的服务号（后台「接口权限」）。"},
	"problem": {"%s", "按英文提示处理，原因说明见 docs/states.zh-CN.md：%s"},
	"away": {"Try again; if it stays, check wechat.base_url, and that this machine and its proxy reach " +
		"%s.", "稍后再试；一直不行就检查 wechat.base_url，以及本机和代理能否访问 %s。"},
	"sweepquota": {"A sweep takes %d calls of user/get, and %d are left: which other program reads the " +
		"follower list?", "一次比对要调用 user/get %d 次，只剩 %d 次：还有哪个程序在拉取关注者列表？"},
	"sendquota": {"%d of %d messages are left today: does another program send, or is " +
		"send.daily_budget needed?", "今天只剩 %d / %d 条：是否有别的程序在发，或需要设置 send.daily_budget？"},
	"nofollowers": {"Check that %s is the account that people follow.", "确认 %s 就是用户关注的那个公众号。"},
	"template":    {"Write %s at the alias, if that is the one: its keys are %s.", "如果就是这个模板，把别名的 id 改成 %s：它的字段是 %s。"},
	"nocallback": {"Check that the daemon runs and that the proxy in front of it passes /wechat/%s on " +
		"unchanged.", "确认守护进程在运行，前面的反向代理把 /wechat/%s 原样转发。"},
	"callbacktoken": {"The daemon and this configuration have different Tokens: restart the daemon, " +
		"then compare %s with the console's Token.", "守护进程和这份配置的 Token 不一致：重启守护进程，再把 %s 和后台的 Token 核对。"},
	"nosender": {"systemctl start unionbridge: no instance sends for %s.", "执行 systemctl start unionbridge：没有实例在为 %s 发送。"},
	"levels":   {"Upgrade the instance %s.", "升级实例 %s。"},
	"others":   {"Give all instances the same accounts: others work for %s.", "让所有实例的账号一致：别的实例在处理 %s。"},
	"stuck":    {"unionbridge requests list --status pending --reason %s", "执行 unionbridge requests list --status pending --reason %s"},
	"unknown": {"unionbridge requests list --status unknown; then requests resolve.",
		"执行 unionbridge requests list --status unknown，再用 requests resolve 处理。"},
	"noreceipts": {"No receipt of %s has come for a day: check 服务器配置 in the console, and " +
		"unionbridge_callbacks_total.", "%s 一天没有收到回执：检查后台「服务器配置」和指标 unionbridge_callbacks_total。"},
	"disk":      {"Make room on %s: at the present growth it is full in %d days.", "给 %s 扩容：按现在的增长还能用 %d 天。"},
	"retention": {"Start a daemon: finished requests are deleted by it.", "启动守护进程：已结束的请求由它清理。"},
}
