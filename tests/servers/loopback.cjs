// kinesis-local listens on all interfaces and knows no setting for it: nobody but this machine is to reach it.
const net = require("node:net");

const listen = net.Server.prototype.listen;
net.Server.prototype.listen = function (first, ...rest) {
  if (typeof first === "number") {
    const named = typeof rest[0] === "string" ? rest.slice(1) : rest.filter((argument) => typeof argument !== "undefined");
    return listen.call(this, first, "127.0.0.1", ...named);
  }
  if (first !== null && typeof first === "object" && "port" in first) {
    return listen.call(this, { ...first, host: "127.0.0.1" }, ...rest);
  }
  return listen.call(this, first, ...rest);
};
